//! What the tests of this crate share.

use qemu_tests::{Accel, host};
use std::io::Write;

/// Says something that libtest does not swallow when the test passes.
pub fn aloud(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs `test` once for each accelerator that this host has, and says why not for the others.
pub fn each_accel(name: &str, test: impl Fn(Accel)) {
    for accel in Accel::ALL {
        match host::why_not(accel) {
            None => test(accel),
            Some(why) => aloud(&format!("skipped: {name} with {accel:?}: {why}")),
        }
    }
}
