//! Exit codes of the verbs that run a VM; see `vmm-lite --help`.

use vmm::vm::{End, StopReason};

/// Exit code of `run`, `receive`, `restore` and `standby` when vmm-lite itself failed, or the
/// standby lost its place; distinct from the guest's own codes.
pub const EXIT_VMM: u8 = 125;
/// Exit code of the same verbs when the VMM ended the guest because it violated the interface.
pub const EXIT_GUEST_VIOLATION: u8 = 126;

/// The exit code for this end of the VM.
#[must_use]
pub fn of_end(end: &End) -> u8 {
    match end {
        // As for any process, only the low eight bits reach the shell.
        End::Exited(code) => *code as u8,
        End::Failed(fault) => fault.exit_code() as u8,
        End::Broke(_) => EXIT_GUEST_VIOLATION,
        End::Stopped(reason) => of_stop(*reason),
        End::Moved => 0,
        End::Vmm(_) => EXIT_VMM,
    }
}

/// The exit code for this reason to stop.
#[must_use]
pub fn of_stop(reason: StopReason) -> u8 {
    let signal = match reason {
        StopReason::Stop => libc::SIGTERM,
        StopReason::Interrupt => libc::SIGINT,
        StopReason::Hangup => libc::SIGHUP,
    };
    128 + signal as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use vmm::devices::Violation;

    #[test]
    fn each_end_has_the_code_that_help_names() {
        assert_eq!(of_end(&End::Exited(7)), 7);
        assert_eq!(of_end(&End::Exited(0x1ff)), 0xff, "the low eight bits");
        assert_eq!(of_end(&End::Broke(Violation::TripleFault)), 126);
        assert_eq!(of_end(&End::Vmm(Arc::new(std::io::Error::other("disk")))), 125);
        assert_eq!(of_end(&End::Moved), 0);
        assert_eq!(of_end(&End::Stopped(StopReason::Stop)), 143);
        assert_eq!(of_end(&End::Stopped(StopReason::Interrupt)), 130);
    }
}
