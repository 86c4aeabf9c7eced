//! What a process that runs a VM gives up before anything of a guest's or a peer's reaches it.
//!
//! - [`files`]: descriptors that it inherited and does not know
//! - [`privileges`]: the user it was started by, capabilities, the way back to either
//! - [`jail`]: more than that, where it is asked for
//! - [`filters`]: the system calls that each of its threads may make, and with which arguments; any
//!   other kills the process ([`Mode`])
//!
//! A thread takes its filter on by [`enter`], first thing. Filters are inherited and can only get
//! narrower, so that a thread which starts others may do at least what those may. Until [`arm`] was
//! called nothing of this happens: tests and other programs use the library unconfined.
//!
//! Whoever adds a system call to a thread finds out by `tests/confinement/`, which goes through all
//! verbs under [`Mode::Trap`] and names the call that is missing, and adds it to [`filters`].

mod calls;
pub mod files;
pub mod filters;
pub mod jail;
pub mod privileges;
mod trap;

pub use filters::Thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, sock_filter};
use serde::{Deserialize, Serialize};
use std::{io, sync::OnceLock};

/// What becomes of a thread that makes a call which its filter does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
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
        "cannot filter the system calls of thread {thread}; a kernel without seccomp needs \
         --seccomp off"
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
    /// A part of a jail that this host does not give.
    #[error("cannot jail the VM ({part}); --jail-without {part} leaves that out")]
    Jail {
        /// Which.
        part: &'static str,
        /// What it lacks.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A user or a group that is not there.
    #[error("{0}")]
    Who(String),
}

static MODE: OnceLock<Mode> = OnceLock::new();

/// Makes [`enter`] confine the threads of this process from now on. To be called once, while there
/// is only one thread.
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
    // would kill the process before the message is out. SAFETY: the process has one thread, as the
    // caller says.
    unsafe { std::env::set_var("RUST_BACKTRACE", "0") };
    if mode == Mode::Trap {
        trap::install()?;
    }
    Ok(())
}

/// Confines the calling thread for good, if the process is [armed](arm).
///
/// # Errors
/// [`Error::Filter`]; the thread must not go on then.
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

/// The same filter for a kernel that has no `clone3`: its flags are in memory, where no filter can
/// see them. The C library then uses `clone`, whose flags are arguments. (A filter of its own for
/// this would cost as much again as the other: a tenth of a millisecond of the cold start.)
fn without_clone3(program: BpfProgram) -> BpfProgram {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let unimplemented = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
    let instruction = |code, jf, k| sock_filter { code, jt: 0, jf, k };
    let mut all = vec![
        // The number of the call is what the filter's input begins with.
        instruction(LOAD, 0, 0),
        instruction(JUMP_IF_EQUAL, 1, libc::SYS_clone3 as u32),
        instruction(RETURN, 0, unimplemented),
    ];
    all.extend(program);
    all
}

/// One heap for all threads does for what is allocated here. With more, the C library opens files
/// of its own: to learn how many CPUs there are, and, when it gives a heap's memory back, how the
/// host overcommits. To be called before there is a second thread: one that had a heap of its own
/// leaves it to the next.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1)
    };
}
