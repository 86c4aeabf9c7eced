//! How VMs end.

use crate::devices::Violation;
use std::{fmt, sync::Arc, sync::atomic::Ordering::Relaxed};
use vmm_lite_interface::control::{FaultKind, FaultReport};

/// How a VM ended.
#[derive(Debug)]
pub enum End {
    /// The program ended with this code.
    Exited(i32),
    /// The program or its kernel failed, and reported how.
    Failed(GuestFault),
    /// The guest broke a rule of the interface, and the VMM ended it.
    Broke(Violation),
    /// It was stopped.
    Stopped(StopReason),
    /// It runs on another host now.
    Moved,
    /// The host failed.
    Vmm(Arc<dyn std::error::Error + Send + Sync>),
}

/// What stopped a VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// `vmm-lite stop`, or SIGTERM.
    Stop,
    /// SIGINT.
    Interrupt,
    /// SIGHUP: the terminal was closed.
    Hangup,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "the program ended with code {code}"),
            Self::Failed(fault) => write!(f, "the guest failed: {}", fault.what()),
            Self::Broke(violation) => violation.fmt(f),
            Self::Stopped(StopReason::Stop) => f.write_str("it was stopped"),
            Self::Stopped(StopReason::Interrupt) => f.write_str("it was interrupted"),
            Self::Stopped(StopReason::Hangup) => f.write_str("its terminal was closed"),
            Self::Moved => f.write_str("it runs on another host now"),
            Self::Vmm(error) => f.write_str(&crate::host::with_causes(&**error)),
        }
    }
}

/// A guest's own report of its failure, copied and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestFault {
    /// The kind, if it is known.
    pub kind: Option<FaultKind>,
    /// Number of the thread; the main thread is 0.
    pub thread: u32,
    /// Exception vector and error code.
    pub exception: (u32, u32),
    /// The faulting address.
    pub address: u64,
    /// Instruction pointer.
    pub rip: u64,
    /// Stack pointer.
    pub rsp: u64,
    /// Return addresses, innermost first.
    pub backtrace: Vec<u64>,
}

impl GuestFault {
    /// The current content of `report`.
    #[must_use]
    pub fn copy(report: &FaultReport) -> Self {
        let len = (report.backtrace_len.load(Relaxed) as usize).min(report.backtrace.len());
        Self {
            kind: FaultKind::from_u32(report.kind.load(Relaxed)),
            thread: report.thread.load(Relaxed),
            exception: (report.vector.load(Relaxed), report.error_code.load(Relaxed)),
            address: report.address.load(Relaxed),
            rip: report.rip.load(Relaxed),
            rsp: report.rsp.load(Relaxed),
            backtrace: report.backtrace[..len].iter().map(|a| a.load(Relaxed)).collect(),
        }
    }

    /// The exit code for it.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        self.kind.unwrap_or(FaultKind::Kernel).exit_code()
    }

    /// What happened, in one line.
    #[must_use]
    pub fn what(&self) -> String {
        let Self { thread, address, rip, exception: (vector, code), .. } = self;
        let access = if code & 2 != 0 { "write to" } else { "read of" };
        let access = if code & 16 != 0 { "jump to" } else { access };
        let what = match self.kind {
            Some(FaultKind::WildAccess) if *vector == 13 => {
                "access to an address no program has".into()
            }
            Some(FaultKind::WildAccess) => {
                format!("{access} address {address:#x}, which it may not")
            }
            Some(FaultKind::StackOverflow) => format!("stack overflow at address {address:#x}"),
            Some(FaultKind::IllegalInstruction) => "illegal instruction".into(),
            Some(FaultKind::Exception) => format!("CPU exception {vector}, error code {code:#x}"),
            Some(FaultKind::Abort) => "the program aborted".into(),
            Some(FaultKind::Kernel) => "the unikernel found itself broken".into(),
            Some(FaultKind::Deadlock) => {
                return "deadlock: every thread waits, and nothing could wake one".into();
            }
            None => "a failure of a kind this vmm-lite does not know".into(),
        };
        format!("{what}, in thread {thread} at {rip:#x}")
    }
}
