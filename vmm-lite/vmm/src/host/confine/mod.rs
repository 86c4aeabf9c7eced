//! What a process that runs a VM gives up before it handles any input of a guest or a peer.
//!
//! - [`files`]: inherited descriptors that it does not know
//! - [`privileges`]: the user that started it, capabilities, and ways to regain either
//! - [`jail`]: more than that, on request
//! - [`filters`]: the system calls that each of its threads may make, and with which arguments; any
//!   other call kills the process ([`Mode`])
//!
//! A thread installs its filter first of all, by [`enter`]. Filters are inherited and can only get
//! narrower, so a thread that starts others needs at least their calls. Before [`arm`] is called
//! nothing of this happens: tests and other programs use the library unconfined.
//!
//! `tests/confinement/` runs all verbs under [`Mode::Trap`] and names a call that a filter lacks. A
//! new system call of a thread is added to [`filters`].

mod calls;
pub mod files;
pub mod filters;
pub mod jail;
pub mod privileges;
mod threads;
mod trap;

pub use threads::Thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};
use serde::{Deserialize, Serialize};
use std::{io, sync::OnceLock};

/// What happens when a thread makes a call that its filter does not allow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Mode {
    /// The kernel kills the process at once, with SIGSYS
    #[default]
    Kill,
    /// As `Kill`, after the call's name is printed
    Trap,
    /// The call is made, and the kernel's audit log records its number
    Log,
    /// No filters
    Off,
}

/// Why a process could not be confined.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The kernel rejects a filter.
    #[error(
        "cannot filter the system calls of thread {thread}; a kernel without seccomp needs \
         --seccomp off"
    )]
    Filter {
        /// The filter's thread.
        thread: &'static str,
        /// The error of the kernel or the compiler.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another call failed.
    #[error("cannot {doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// The host's error.
        source: io::Error,
    },
    /// This host cannot provide a part of a jail.
    #[error("cannot jail the VM ({part}); --jail-without {part} leaves that out")]
    Jail {
        /// The part.
        part: &'static str,
        /// What the host lacks.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A user or a group that does not exist.
    #[error("{0}")]
    Who(String),
}

static MODE: OnceLock<Mode> = OnceLock::new();

/// Makes [`enter`] confine the threads of this process from now on. Call it once, while there is
/// only one thread.
///
/// # Errors
/// [`Error`].
pub fn arm(mode: Mode) -> Result<(), Error> {
    MODE.get_or_init(|| mode);
    if mode == Mode::Off {
        tracing::warn!(
            "system calls are not filtered: a guest that breaks out of KVM may do what this user \
             may"
        );
        return Ok(());
    }
    // A backtrace of our own panics is made from files that cannot be opened any more: the attempt
    // would kill the process before it prints the message. SAFETY: the process has one thread,
    // which the caller guarantees.
    unsafe { std::env::set_var("RUST_BACKTRACE", "0") };
    if mode == Mode::Trap {
        trap::install()?;
    }
    Ok(())
}

/// Confines the calling thread for good, if the process is [armed](arm).
///
/// # Errors
/// [`Error::Filter`]: the thread must not continue then.
pub fn enter(thread: Thread) -> Result<(), Error> {
    let Some(mode) = MODE.get() else { return Ok(()) };
    trap::name_thread(thread.name());
    privileges::drop_thread_capabilities(thread)?;
    let mismatch = match mode {
        Mode::Kill => SeccompAction::KillProcess,
        Mode::Trap => SeccompAction::Trap,
        Mode::Log => SeccompAction::Log,
        Mode::Off => return Ok(()),
    };
    install(thread, mismatch).map_err(|source| Error::Filter { thread: thread.name(), source })
}

fn install(
    thread: Thread,
    mismatch: SeccompAction,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let rules = thread.calls().into_rules()?;
    let filter = SeccompFilter::new(rules, mismatch, SeccompAction::Allow, TargetArch::x86_64)?;
    Ok(seccompiler::apply_filter(&without_clone3(filter.try_into()?))?)
}

/// The same filter for a kernel without `clone3`: its flags are in memory, where no filter can see
/// them. The C library then uses `clone`, whose flags are arguments. (A separate filter for this
/// would cost as much again as the other: a tenth of a millisecond of the cold start.)
fn without_clone3(program: BpfProgram) -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let unimplemented = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let instruction = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    let mut all = vec![
        // The filter's input begins with the call's number.
        instruction(LOAD, 0, 0),
        instruction(JUMP_IF_EQUAL, 1, libc::SYS_clone3 as u32),
        instruction(RETURN, 0, unimplemented),
    ];
    all.extend(program);
    all
}

/// One heap for all threads is enough for what is allocated here. With more, the C library opens
/// files of its own: to learn how many CPUs there are, and, when it returns a heap's memory, how
/// the host overcommits. Call it before there is a second thread: a thread that has a heap of its
/// own leaves it to the next.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
