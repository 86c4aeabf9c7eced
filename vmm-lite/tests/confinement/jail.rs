//! A VM in a jail, as the kernel sees it.

use crate::{
    process::{Confined, Origin},
    trace::put_call,
};
use nix::{
    sys::{
        ptrace,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use std::{fs, path::PathBuf};
use testkit::guest::kvm;
use vmm::host::confine::Thread;
use vmm_lite_lab::skipped;

/// The first of the user ids for jails.
const FIRST_USER: u32 = 0x7000_0000;

/// The user in whose jail the process `pid` runs.
pub fn user_of(pid: u32) -> u32 {
    FIRST_USER + pid
}

/// The hierarchy of cgroups, if it can limit what a jail limits.
fn hierarchy() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ").then(|| PathBuf::from(mount.split(' ').nth(4).unwrap()))
    })?;
    let there = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
    let all = ["memory", "cpu", "pids"].iter().all(|c| there.split_whitespace().any(|t| t == *c));
    all.then_some(root)
}

/// `--jail`, without the parts that this host cannot provide, which are printed.
pub fn options(test: &str) -> Vec<&'static str> {
    let mut options = vec!["--jail"];
    if hierarchy().is_none() {
        skipped(&format!("{test}: cgroups"), "no cgroup v2 with the controllers for limits");
        options.extend(["--jail-without", "cgroup"]);
    }
    if !nix::unistd::geteuid().is_root() {
        skipped(&format!("{test}: a user of its own"), "only root can become another user");
        options.extend(["--jail-without", "user"]);
    }
    options
}

/// Makes a thread open the root directory, and returns the kernel's result. The thread continues as
/// before.
fn opens_root(thread: Pid) -> i64 {
    let before = put_call(thread, libc::SYS_getpid, [0; 3]);
    // The path goes below the stack.
    let at = before.rsp - 4096;
    ptrace::write(thread, at as ptrace::AddressType, i64::from(b'/')).unwrap();
    let call = libc::user_regs_struct {
        rax: libc::SYS_openat.cast_unsigned(),
        // Ignored, as the path is absolute.
        rdi: 0,
        rsi: at,
        rdx: (libc::O_RDONLY | libc::O_DIRECTORY) as u64,
        ..ptrace::getregs(thread).unwrap()
    };
    ptrace::setregs(thread, call).unwrap();
    // To the entry and to the exit of the call.
    for _ in 0..2 {
        ptrace::syscall(thread, None).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
    }
    let opened = ptrace::getregs(thread).unwrap().rax.cast_signed();
    ptrace::setregs(thread, before).unwrap();
    ptrace::detach(thread, None).unwrap();
    opened
}

#[test]
fn a_jailed_process_opens_no_file_and_has_its_own_user_network_and_cgroup() {
    const TEST: &str = "a jail from outside";
    if !kvm() {
        return;
    }
    let jail = options(TEST);
    for origin in [Origin::Run, Origin::Restored, Origin::Lazily, Origin::Forked, Origin::Counted] {
        // Without filters, which the test is not about: they would kill the process.
        let free = Confined::with(origin, &["--seccomp", "log"]);
        let opened = opens_root(free.thread(Thread::Main));
        assert!(opened >= 0, "{origin:?}: the probe itself does not work: {opened}");
        drop(free);
        let jailed = Confined::with(origin, &[&jail[..], &["--seccomp", "log"]].concat());
        let main = jailed.thread(Thread::Main);
        let pid = jailed.pid.as_raw().cast_unsigned();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let status = crate::process::fields(&status);
        if nix::unistd::geteuid().is_root() {
            let user = user_of(pid).to_string();
            for field in ["Uid", "Gid"] {
                let all: Vec<_> = status[field].split_whitespace().collect();
                assert_eq!(all, [&user; 4], "{origin:?} {field}");
            }
        }
        let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_ne!(network(&pid.to_string()), network("self"), "{origin:?}");
        if let Some(root) = hierarchy() {
            let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
            let own = own.lines().find_map(|l| l.strip_prefix("0::/")).unwrap().to_owned();
            assert!(own.ends_with(&format!("vm-{pid}")), "{origin:?}: {own}");
            let limit = |name: &str| fs::read_to_string(root.join(&own).join(name)).unwrap();
            // The guest's 2 MiB, and 128 MiB for the rest.
            assert_eq!(limit("memory.max").trim(), (130_u64 << 20).to_string());
            assert_eq!(limit("cpu.max").trim(), "200000 100000");
            assert_eq!(limit("pids.max").trim(), "256");
        }
        for thread in [main, jailed.thread(Thread::Control)] {
            let opened = opens_root(thread);
            assert_eq!(opened, -i64::from(libc::EACCES), "{origin:?}");
        }
    }
}

#[test]
fn a_jail_part_that_is_unavailable_is_an_error_and_no_vm_runs() {
    if !kvm() {
        return;
    }
    let dir = Confined::dir();
    let image = crate::process::image();
    let path = image.path().to_str().unwrap();
    let run = |args: &[&str]| {
        let run = [&["run", path, "--memory", "2M"], args].concat();
        let out = Confined::command(&dir, &run).output().unwrap();
        assert_eq!(out.stdout, b"", "{args:?}: it ran");
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, said) = run(&["--jail", "--jail-cgroup", "/nowhere"]);
    assert_eq!(code, Some(125), "{said}");
    for text in ["cannot jail the VM (cgroup)", "--jail-without cgroup", "/nowhere"] {
        assert!(said.contains(text), "{said}");
    }
    for needless in [&["--jail-without", "files"][..], &["--jail-cgroup", "/"]] {
        let (code, said) = run(needless);
        assert!(code == Some(2) && said.contains("--jail"), "{needless:?}: {said}");
    }
    let _ = fs::remove_dir_all(dir);
}
