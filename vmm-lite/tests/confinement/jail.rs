//! A VM in a jail, as the kernel sees it.

use crate::{common::kvm, process::Confined};
use std::{fs, path::PathBuf};
use vmm_lite_lab::skipped;

/// The first of the users that jails have.
const FIRST_USER: u32 = 0x7000_0000;

/// Who is in the jail of the process `pid`.
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

/// `--jail`, without what this host cannot give, said aloud.
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

#[test]
fn a_part_that_cannot_be_had_is_an_error_and_no_vm_runs() {
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
