//! What a process that runs a VM gives up before anything of a guest's or a peer's reaches it.
//!
//! - [`files`]: descriptors that it inherited and does not know
//! - [`privileges`]: the user it was started by, capabilities, the way back to either
//! - [`filters`]: the system calls that each of its threads may make, and with which arguments; any other kills the process ([`Mode`])
//!
//! A thread takes its filter on by [`enter`], first thing. Filters are inherited and can only get narrower, so that a thread which starts others may do
//! at least what those may. Until [`arm`] was called nothing of this happens: tests and other programs use the library unconfined.
//!
//! Whoever adds a system call to a thread finds out by `tests/confinement.rs`, which goes through all verbs under [`Mode::Trap`] and names the call that
//! is missing, and adds it to [`filters`].

mod calls;
pub mod files;
pub mod filters;
pub mod privileges;
mod trap;

pub use filters::Thread;

use calls::Calls;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::{io, sync::OnceLock};

/// What becomes of a thread that makes a call which its filter does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Mode {
    /// The kernel kills the process at once, with SIGSYS
    #[default]
    Kill,
    /// As kill, after the call's name was printed
    Trap,
    /// The call is made, and the kernel's audit log has its number
    Log,
    /// No filters
    Off,
}

/// Why a process could not be confined.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The kernel does not take a filter.
    #[error(
        "cannot filter the system calls of thread {thread}; a kernel without seccomp needs --seccomp off"
    )]
    Filter {
        /// Which.
        thread: &'static str,
        /// What the kernel or the compiler says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another call failed.
    #[error("cannot {doing}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// What the host says.
        source: io::Error,
    },
    /// A user or a group that is not there.
    #[error("{0}")]
    Who(String),
}

static MODE: OnceLock<Mode> = OnceLock::new();

/// Makes [`enter`] confine the threads of this process from now on. To be called once, while there is only one thread.
///
/// # Errors
/// [`Error`].
pub fn arm(mode: Mode) -> Result<(), Error> {
    MODE.get_or_init(|| mode);
    if mode == Mode::Off {
        tracing::warn!(
            "system calls are not filtered: a guest that breaks out of KVM may do what this user may"
        );
        return Ok(());
    }
    // A backtrace of our own panics is made from files that cannot be opened any more: the attempt would kill the process before the message is out.
    // SAFETY: the process has one thread, as the caller says.
    unsafe { std::env::set_var("RUST_BACKTRACE", "0") };
    few_arenas();
    if mode == Mode::Trap {
        trap::install()?;
    }
    let failed = |source| Error::Filter { thread: "main", source };
    let unimplemented = SeccompAction::Errno(libc::ENOSYS as u32);
    let program = compile(filters::unimplemented(), SeccompAction::Allow, unimplemented);
    install(&program.map_err(failed)?).map_err(failed)
}

/// Confines the calling thread for good, if the process is [armed](arm).
///
/// # Errors
/// [`Error::Filter`]; the thread must not go on then.
pub fn enter(thread: Thread) -> Result<(), Error> {
    let Some(mode) = MODE.get() else { return Ok(()) };
    let failed = |source| Error::Filter { thread: thread.name(), source };
    trap::name_thread(thread.name());
    privileges::drop_thread_capabilities(thread)?;
    let mismatch = match mode {
        Mode::Kill => SeccompAction::KillProcess,
        Mode::Trap => SeccompAction::Trap,
        Mode::Log => SeccompAction::Log,
        Mode::Off => return Ok(()),
    };
    let program = compile(thread.calls(), mismatch, SeccompAction::Allow).map_err(failed)?;
    install(&program).map_err(failed)
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

fn compile(
    calls: Calls,
    mismatch: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, Cause> {
    let filter = SeccompFilter::new(calls.into_rules()?, mismatch, matched, TargetArch::x86_64)?;
    Ok(filter.try_into()?)
}

fn install(program: &BpfProgram) -> Result<(), Cause> {
    Ok(seccompiler::apply_filter(program)?)
}

/// Heaps of threads: two do for what is allocated here, and the C library need not ask the file system how many CPUs there are.
fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2)
    };
}
