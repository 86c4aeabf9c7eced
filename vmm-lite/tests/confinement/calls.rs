//! Filters: a system call outside a thread's filter kills the process.

use crate::{
    process::{COPIES, Confined, Origin, signing},
    trace::{Caught, make, put_call},
    verbs::Trapped,
};
use nix::sys::{
    ptrace,
    signal::Signal,
    wait::{WaitPidFlag, WaitStatus, waitpid},
};
use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
};
use testkit::guest::kvm;
use vmm::host::confine::Thread;
use vmm_lite_lab::{images::image, probe::Connection, vmm::TIMEOUT};

/// The kinds of thread, and for each a call that other threads may make, so that it is the thread's
/// own filter which forbids it.
fn forbidden() -> Vec<(Thread, i64, [u64; 3])> {
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    let fork = [libc::SIGCHLD as u64, 0, 0];
    let thread = [(libc::CLONE_VM | libc::CLONE_SIGHAND | libc::CLONE_THREAD) as u64, 0, 0];
    let executable = [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as u64];
    let mut all = vec![
        (Thread::Main, libc::SYS_clone, fork),
        (Thread::Main, libc::SYS_openat, [0; 3]),
        (Thread::Vcpu, libc::SYS_socket, inet),
        (Thread::Vcpu, libc::SYS_mmap, executable),
        (Thread::Stdin, libc::SYS_ioctl, [0, 0xae80, 0]),
        (Thread::Control, libc::SYS_openat, [0; 3]),
        (Thread::Control, libc::SYS_socket, [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0]),
        // Of another thread.
        (Thread::Control, libc::SYS_sched_setattr, [1, 0, 0]),
        (Thread::ConsoleIn, libc::SYS_socket, inet),
        (Thread::Metrics, libc::SYS_openat, [0; 3]),
        (Thread::Watchdog, libc::SYS_openat, [0; 3]),
        (Thread::Watchdog, libc::SYS_accept4, [0; 3]),
        (Thread::Watchdog, libc::SYS_clone, thread),
        (Thread::Accept, libc::SYS_clone, fork),
        (Thread::Receive, libc::SYS_socket, inet),
        (Thread::Receive, libc::SYS_ioctl, [0, libc::TIOCSTI, 0]),
        (Thread::Journal, libc::SYS_socket, inet),
        (Thread::Journal, libc::SYS_ioctl, [0, 0xae80, 0]),
        (Thread::Snapshots, libc::SYS_socket, inet),
    ];
    // Calls that no thread may make.
    all.extend([
        (Thread::Main, libc::SYS_execve, [0; 3]),
        (Thread::Vcpu, libc::SYS_execve, [0; 3]),
        (Thread::Stdin, libc::SYS_setuid, [0; 3]),
        (Thread::Control, libc::SYS_ptrace, [0; 3]),
        (Thread::ConsoleIn, libc::SYS_mount, [0; 3]),
        (Thread::Accept, libc::SYS_bpf, [0; 3]),
        (Thread::Receive, libc::SYS_execveat, [0; 3]),
    ]);
    all
}

fn with_thread(kind: Thread) -> Confined {
    let origin = match kind {
        Thread::Accept | Thread::Receive => Origin::Receive,
        Thread::Journal | Thread::Snapshots => Origin::Journaled,
        _ => Origin::Run,
    };
    Confined::with(origin, &[])
}

/// Makes a thread issue a call, which must kill the process.
fn is_killed(mut process: Confined, kind: Thread, call: i64, args: [u64; 3]) {
    let thread = process.thread(kind);
    put_call(thread, call, args);
    ptrace::cont(thread, None).unwrap();
    let own = process.child.id() == process.pid.as_raw().cast_unsigned();
    if thread != process.pid || !own {
        let ended = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        let killed = matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _));
        assert!(killed, "{kind:?}, call {call}: {ended:?}");
    }
    let status = process.child.wait().unwrap();
    if own {
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{kind:?}, call {call}: {status}");
    } else {
        assert_eq!(status.code(), Some(1), "it reports a clone's end");
    }
}

#[test]
fn a_forbidden_call_kills_the_process_whichever_thread_makes_it() {
    if !kvm() {
        return;
    }
    for (kind, call, args) in forbidden() {
        is_killed(with_thread(kind), kind, call, args);
    }
}

#[test]
fn a_forbidden_call_kills_a_copy_whichever_thread_makes_it() {
    if !kvm() {
        return;
    }
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    for origin in COPIES {
        for (kind, call, args) in [
            (Thread::Main, libc::SYS_openat, [0; 3]),
            (Thread::Main, libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0]),
            (Thread::Vcpu, libc::SYS_socket, inet),
            (Thread::Vcpu, libc::SYS_execve, [0; 3]),
            (Thread::Control, libc::SYS_openat, [0; 3]),
            (Thread::ConsoleIn, libc::SYS_ptrace, [0; 3]),
        ] {
            is_killed(Confined::with(origin, &[]), kind, call, args);
        }
    }
    for origin in [Origin::Restored, Origin::Lazily] {
        let process = Confined::with(origin, &[]);
        is_killed(process, Thread::Stdin, libc::SYS_ioctl, [0, 0xae80, 0]);
    }
}

/// A caught thread may make a call that it has the right to make, and is killed for one that it has
/// not.
fn is_confined(caught: impl Fn() -> Caught, forbidden: &[(i64, [u64; 3])]) {
    let fine = caught();
    make(fine.thread, libc::SYS_gettid, [0; 3]);
    ptrace::step(fine.thread, None).unwrap();
    let stopped = waitpid(fine.thread, Some(WaitPidFlag::__WALL)).unwrap();
    assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)), "{stopped:?}");
    assert_eq!(ptrace::getregs(fine.thread).unwrap().rax, fine.thread.as_raw() as u64);
    drop(fine);
    for &(call, args) in forbidden {
        let caught = caught();
        make(caught.thread, call, args);
        for ended in caught.end() {
            let killed = matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _));
            assert!(killed, "call {call}: {ended:?}");
        }
    }
}

#[test]
fn the_thread_that_loads_memory_is_confined() {
    if !kvm() {
        return;
    }
    let (process, file) = Confined::saved();
    let caught = || Caught::new(process.restore_lazily(&file), Thread::Loader);
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    is_confined(
        caught,
        &[
            (libc::SYS_openat, [0; 3]),
            (libc::SYS_socket, inet),
            (libc::SYS_ioctl, [0, 0xae80, 0]),
            (libc::SYS_execve, [0; 3]),
        ],
    );
}

#[test]
fn the_signer_is_confined() {
    if !kvm() {
        return;
    }
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    for (call, args) in [
        (libc::SYS_getpid, [0; 3]),
        (libc::SYS_openat, [0; 3]),
        (libc::SYS_socket, inet),
        (libc::SYS_clone, [libc::SIGCHLD as u64, 0, 0]),
        (libc::SYS_execve, [0; 3]),
        (libc::SYS_ptrace, [0; 3]),
        (libc::SYS_ioctl, [0, 0xae80, 0]),
        (libc::SYS_sendmsg, [0; 3]),
    ] {
        let (process, signer) = signing();
        let before = put_call(signer, call, args);
        if call == libc::SYS_getpid {
            ptrace::step(signer, None).unwrap();
            let stopped = waitpid(signer, Some(WaitPidFlag::__WALL)).unwrap();
            assert!(matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)), "{stopped:?}");
            assert_eq!(ptrace::getregs(signer).unwrap().rax, signer.as_raw() as u64);
            ptrace::setregs(signer, before).unwrap();
            ptrace::detach(signer, None).unwrap();
        } else {
            ptrace::cont(signer, None).unwrap();
            let ended = waitpid(signer, Some(WaitPidFlag::__WALL)).unwrap();
            let killed = matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _));
            assert!(killed, "call {call}: {ended:?}");
        }
        drop(process);
    }
}

#[test]
fn the_thread_that_announces_a_copy_is_confined() {
    let Some(Trapped { _site, vmms: [here, _], client }) = Trapped::new("announcing a copy") else {
        return;
    };
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let mut vm = here.run(&image("kv").unwrap(), &args).unwrap();
    let guest = "10.0.0.2:6379".parse().unwrap();
    drop(Connection::open_when_up(&client, guest, TIMEOUT).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kv.snap").to_str().unwrap().to_owned();
    here.json(&["snapshot", "kv", &file, "--stop", "--json"]).unwrap();
    vm.wait(TIMEOUT).unwrap();
    let caught = || {
        let command = here.command(&["restore", &file, "--tap", "tap0"]).unwrap();
        Caught::new(command, Thread::Announce)
    };
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    let tap = [0, 0x4004_54ca, 0]; // TUNSETIFF
    is_confined(
        caught,
        &[(libc::SYS_openat, [0; 3]), (libc::SYS_socket, inet), (libc::SYS_ioctl, tap)],
    );
}

#[test]
fn the_call_kills_and_not_how_it_is_injected() {
    if !kvm() {
        return;
    }
    for kind in Thread::ALL {
        // These do not wait, see `is_confined`, or belong to a VM that moved or is protected, or to
        // another process.
        let others = [
            Thread::Loader,
            Thread::Announce,
            Thread::Arrived,
            Thread::Signer,
            Thread::Connector,
            Thread::Packets,
            Thread::Replay,
            Thread::Replication,
        ];
        if others.contains(&kind) {
            continue;
        }
        let process = with_thread(kind);
        let thread = process.thread(kind);
        let before = put_call(thread, libc::SYS_getpid, [0; 3]);
        ptrace::step(thread, None).unwrap();
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(
            matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)),
            "{kind:?}: {stopped:?}"
        );
        let pid = u64::from(process.child.id());
        assert_eq!(ptrace::getregs(thread).unwrap().rax, pid, "{kind:?}");
        ptrace::setregs(thread, before).unwrap();
        ptrace::detach(thread, None).unwrap();
    }
}

#[test]
fn a_call_missing_from_a_filter_is_named() {
    if !kvm() {
        return;
    }
    let mut process = Confined::with(Origin::Run, &["--seccomp", "trap"]);
    let thread = process.thread(Thread::Vcpu);
    put_call(thread, libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0]);
    ptrace::detach(thread, None).unwrap();
    let mut line = String::new();
    BufReader::new(process.child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("thread vcpu made the system call socket (41; 0x2, 0x1, 0x0)"), "{line}");
    assert_eq!(process.child.wait().unwrap().signal(), Some(libc::SIGSYS));
}
