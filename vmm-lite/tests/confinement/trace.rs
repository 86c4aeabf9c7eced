//! Makes threads issue system calls that their filters lack.

use crate::process::fields;
use nix::{
    sys::{
        ptrace::{self, Options},
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    fs,
    os::unix::process::CommandExt,
    process::{Child, Command},
    time::Instant,
};
use vmm::host::confine::Thread;
use vmm_lite_lab::vmm::TIMEOUT;

/// Stops a thread that waits in a system call and makes it issue another one instead, as an
/// attacker in control of the thread would. Returns the previous registers.
pub fn put_call(thread: Pid, call: i64, args: [u64; 3]) -> libc::user_regs_struct {
    let deadline = Instant::now() + TIMEOUT;
    ptrace::seize(thread, ptrace::Options::empty()).unwrap();
    loop {
        ptrace::interrupt(thread).unwrap();
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(stopped, WaitStatus::PtraceEvent(..)), "{stopped:?}");
        let before = ptrace::getregs(thread).unwrap();
        if before.orig_rax != u64::MAX {
            return make(thread, call, args);
        }
        // It was between two calls.
        assert!(Instant::now() < deadline, "the thread makes no calls");
        ptrace::cont(thread, None).unwrap();
    }
}

/// Makes a thread that is stopped behind a system call issue another one next. Returns the previous
/// registers.
pub fn make(thread: Pid, call: i64, args: [u64; 3]) -> libc::user_regs_struct {
    let before = ptrace::getregs(thread).unwrap();
    let [rdi, rsi, rdx] = args;
    let rax = call.cast_unsigned();
    // It is stopped behind the system call's instruction, which is two bytes long.
    let rip = before.rip - 2;
    let regs = libc::user_regs_struct { rip, rax, orig_rax: u64::MAX, rdi, rsi, rdx, ..before };
    ptrace::setregs(thread, regs).unwrap();
    before
}

/// A process that was traced from its start, with the thread that was stopped as soon as it had its
/// filter: for threads that do not wait long enough to be found. Dropping this kills the process.
pub struct Caught {
    child: Child,
    pub thread: Pid,
}

impl Caught {
    /// Starts a program and stops its thread of that kind.
    pub fn new(mut command: Command, kind: Thread) -> Self {
        // SAFETY: the closure makes one system call.
        unsafe { command.pre_exec(|| Ok(ptrace::traceme()?)) };
        let child = command.spawn().unwrap();
        let mut caught = Self { child, thread: Pid::from_raw(0) };
        let leader = caught.leader();
        let at_exec = waitpid(leader, Some(WaitPidFlag::__WALL)).unwrap();
        assert_eq!(at_exec, WaitStatus::Stopped(leader, Signal::SIGTRAP));
        let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACESYSGOOD;
        ptrace::setoptions(leader, options).unwrap();
        ptrace::cont(leader, None).unwrap();
        loop {
            match next() {
                WaitStatus::PtraceSyscall(thread) if caught.is(thread, kind) => {
                    caught.thread = thread;
                    return caught;
                }
                // A thread that begins.
                WaitStatus::PtraceSyscall(thread)
                | WaitStatus::Stopped(thread, Signal::SIGSTOP) => {
                    ptrace::syscall(thread, None).unwrap();
                }
                WaitStatus::PtraceEvent(thread, ..) => ptrace::cont(thread, None).unwrap(),
                WaitStatus::Stopped(thread, signal) => ptrace::cont(thread, signal).unwrap(),
                other if other.pid() == Some(leader) => panic!("no thread {kind:?}: {other:?}"),
                _ => {}
            }
        }
    }

    fn leader(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn is(&self, thread: Pid, kind: Thread) -> bool {
        let status = format!("/proc/{}/task/{thread}/status", self.leader());
        let status = fs::read_to_string(status).unwrap();
        let status = fields(&status);
        status["Name"] == kind.name() && status["Seccomp_filters"] == "1"
    }

    /// Lets the thread continue, and waits for its end and that of the whole process.
    pub fn end(self) -> [WaitStatus; 2] {
        ptrace::cont(self.thread, None).unwrap();
        let (leader, mut of_thread) = (self.leader(), None);
        loop {
            match next() {
                // Threads that begin meanwhile. One that has just been killed cannot continue.
                WaitStatus::PtraceEvent(thread, ..) | WaitStatus::PtraceSyscall(thread) => {
                    let _ = ptrace::cont(thread, None);
                }
                WaitStatus::Stopped(thread, signal) if thread != self.thread => {
                    let signal = Some(signal).filter(|signal| *signal != Signal::SIGSTOP);
                    let _ = ptrace::cont(thread, signal);
                }
                status if status.pid() == Some(leader) => {
                    return [of_thread.expect("ends before the process"), status];
                }
                status if status.pid() == Some(self.thread) => of_thread = Some(status),
                _ => {}
            }
        }
    }
}

impl Drop for Caught {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // This process has to wait for its threads.
        while waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).is_ok() {}
    }
}

/// The next event of a process that this thread has started or traces.
fn next() -> WaitStatus {
    waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap()
}
