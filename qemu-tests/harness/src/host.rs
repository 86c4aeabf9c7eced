//! What this host supports, checked in advance, with reasons that a reader can act on.

use crate::machine::PROGRAM;
use crate::{Accel, Error, Result};
use std::fs::OpenOptions;
use std::process::Command;

/// The first line of `qemu-system-x86_64 --version`.
///
/// # Errors
/// [`Error::Start`] if there is no QEMU.
pub fn qemu_version() -> Result<String> {
    let start = |source| Error::Start { program: PROGRAM.to_owned(), source };
    let output = Command::new(PROGRAM).arg("--version").output().map_err(start)?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Why `accel` cannot be used here, or `None`.
#[must_use]
pub fn why_not(accel: Accel) -> Option<String> {
    if let Err(error) = qemu_version() {
        return Some(error.to_string());
    }
    match accel {
        Accel::Tcg => None,
        Accel::Kvm => OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .err()
            .map(|error| format!("/dev/kvm: {error}")),
    }
}
