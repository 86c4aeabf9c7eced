//! What the user sees when a VM has ended.

use vmm::{
    boot::Image,
    vm::{End, GuestFault, Symbols},
};

/// Prints how a VM ended to standard error, unless it ended normally. `image` names functions.
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
    let mut looked_up = Vec::new();
    let mut name = |address| {
        looked_up.push(format!("{address:#x}"));
        symbols.as_ref().and_then(|s| s.name(address)).unwrap_or_else(|| "?".into())
    };
    let mut text = format!("vmm-lite: the guest failed: {}\n", fault.what());
    // An end that the program requested is reported with the address behind the call, which the
    // backtrace begins with.
    if fault.rip != 0 && fault.backtrace.first() != Some(&fault.rip) {
        text += &format!("  at {:#014x} {}\n", fault.rip, name(fault.rip));
    }
    for &address in &fault.backtrace {
        // A return address lies behind the call, which may be the last instruction of its function.
        text += &format!("     {address:#014x} {}\n", name(address.saturating_sub(1)));
    }
    if image.is_none() && !looked_up.is_empty() {
        let addresses = looked_up.join(" ");
        text += &format!("  names: where the image is, run vmm-lite symbols IMAGE {addresses}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_without_an_image_says_how_to_get_names() {
        let mut fault = GuestFault {
            kind: None,
            thread: 0,
            exception: (0, 0),
            address: 0,
            rip: 0x10_1234,
            rsp: 0,
            backtrace: vec![0x10_2000, 0x10_3001],
        };
        let text = failure(&fault, None);
        let hint = "run vmm-lite symbols IMAGE 0x101234 0x101fff 0x103000\n";
        assert!(text.ends_with(hint), "{text}");
        (fault.rip, fault.backtrace) = (0, Vec::new());
        assert!(!failure(&fault, None).contains("symbols"));
    }
}
