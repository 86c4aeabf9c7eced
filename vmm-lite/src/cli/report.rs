//! What the user is told when a machine has ended.

use crate::{
    boot::Image,
    vm::{End, GuestFault, Symbols},
};

/// Prints how a machine ended, if that is not what programs do when all is well, to standard error. `image` names functions.
pub fn end(end: &End, image: Option<&Image>) {
    match end {
        End::Exited(_) => {}
        End::Failed(fault) => eprint!("{}", failure(fault, image)),
        other => eprintln!("vmm-lite: {other}"),
    }
}

/// A guest's failure with its backtrace.
fn failure(fault: &GuestFault, image: Option<&Image>) -> String {
    let symbols = image.and_then(|image| match Symbols::of(image.file()) {
        Ok(symbols) => Some(symbols),
        Err(e) => {
            tracing::warn!("no function names: cannot read {}: {e}", image.path().display());
            None
        }
    });
    let name =
        |address| symbols.as_ref().and_then(|s| s.name(address)).unwrap_or_else(|| "?".into());
    let mut text = format!("vmm-lite: the guest failed: {}\n", fault.what());
    // An end that the program asked for is told with the address behind the call, which the backtrace begins with.
    if fault.rip != 0 && fault.backtrace.first() != Some(&fault.rip) {
        text += &format!("  at {:#014x} {}\n", fault.rip, name(fault.rip));
    }
    for &address in &fault.backtrace {
        // A return address lies behind the call, which may be the last instruction of its function.
        text += &format!("     {address:#014x} {}\n", name(address.saturating_sub(1)));
    }
    text
}
