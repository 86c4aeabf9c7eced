//! Limits for a VM's process: a cgroup (v2) of its own.
//!
//! A process cannot remove the cgroup that it is in, so each process that makes one first removes
//! those that are empty.

use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the VMM needs in addition to the guest's memory: buffers, tables, copies of pages that a
/// snapshot has yet to write.
const MEMORY_BESIDE: u64 = 128 << 20;
/// Microseconds of CPU time in each [`PERIOD`]: the guest's one CPU, and another for moves and
/// snapshots.
const CPU_TIME: u64 = 2 * PERIOD;
const PERIOD: u64 = 100_000;
/// Threads; clients of the control socket and peers are limited to far fewer.
const TASKS: u64 = 256;
/// Parent of the cgroups, if none is named.
const PARENT: &str = "vmm-lite";
/// Prefix of the names of cgroups that are made here.
const PREFIX: &str = "vm-";
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

/// Puts this process into a cgroup of its own, in `parent` or in the common one for all VMs.
/// Returns the cgroup's path.
///
/// # Errors
/// A text that says what the host lacks.
pub fn join(parent: Option<&Path>, memory: u64) -> Result<PathBuf, Failure> {
    let made;
    let parent = match parent {
        Some(parent) => parent,
        None => {
            made = default_parent()?;
            made.as_path()
        }
    };
    delegate(parent)?;
    // The lock keeps another process from removing a cgroup that was just made and is still empty.
    let lock = File::open(parent).map_err(failed("open", parent))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, e)| e)?;
    sweep(parent);
    let own = parent.join(format!("{PREFIX}{}", std::process::id()));
    fs::create_dir(&own).map_err(failed("make", &own))?;
    let limit = |name: &str, value: String| write(&own.join(name), &value);
    let limited = limit("memory.max", memory.saturating_add(MEMORY_BESIDE).to_string())
        .and_then(|()| limit("cpu.max", format!("{CPU_TIME} {PERIOD}")))
        .and_then(|()| limit("pids.max", TASKS.to_string()))
        // This process.
        .and_then(|()| limit("cgroup.procs", "0".into()));
    limited.inspect_err(|_| drop(fs::remove_dir(&own)))?;
    Ok(own)
}

/// The common parent for all VMs, at the root of the hierarchy.
fn default_parent() -> Result<PathBuf, Failure> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let root = mount_point(&mounts).ok_or("there is no cgroup v2 file system here")?;
    has_controllers(&root)?;
    delegate(&root)?;
    let parent = root.join(PARENT);
    match fs::create_dir(&parent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(failed("make", &parent)(e)),
        _ => Ok(parent),
    }
}

/// The hierarchy's mount point, as `mountinfo` states it (proc(5)).
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = mount.split(' ').nth(4)?;
        kind.starts_with("cgroup2 ").then(|| point.into())
    })
}

fn has_controllers(cgroup: &Path) -> Result<(), Failure> {
    let file = cgroup.join("cgroup.controllers");
    let there = fs::read_to_string(&file).map_err(failed("read", &file))?;
    let there: Vec<&str> = there.split_whitespace().collect();
    match CONTROLLERS.iter().find(|c| !there.contains(c)) {
        None => Ok(()),
        Some(lacking) => Err(format!(
            "cgroup v2 at {} has no controller {lacking}: it is not delegated, or cgroup v1 has it",
            cgroup.display()
        )
        .into()),
    }
}

/// Enables the controllers for cgroups in this one.
fn delegate(cgroup: &Path) -> Result<(), Failure> {
    has_controllers(cgroup)?;
    let file = cgroup.join("cgroup.subtree_control");
    let on = fs::read_to_string(&file).map_err(failed("read", &file))?;
    if CONTROLLERS.iter().all(|c| on.split_whitespace().any(|on| on == *c)) {
        return Ok(());
    }
    write(&file, &CONTROLLERS.map(|c| format!("+{c}")).join(" "))
}

/// Removes the cgroups of VMs that have ended.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // The kernel refuses to remove one with a process in it.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

fn write(file: &Path, value: &str) -> Result<(), Failure> {
    fs::write(file, value).map_err(failed("write to", file))
}

fn failed<'a>(doing: &'a str, path: &'a Path) -> impl FnOnce(io::Error) -> Failure + 'a {
    move |e| {
        let hint = "name a cgroup that is delegated to this user with --jail-cgroup";
        format!("cannot {doing} {}: {e}; {hint}", path.display()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_the_mounts() {
        let both = "30 1 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw\n\
            31 30 0:28 / /sys/fs/cgroup/cpu rw shared:5 - cgroup cgroup rw,cpu\n\
            40 30 0:37 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mount_point(both), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("31 30 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
    }

    #[test]
    fn a_cgroup_without_the_controllers_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "memory pids\n").unwrap();
        let error = join(Some(dir.path()), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("has no controller cpu"), "{error}");
        let missing = dir.path().join("none");
        let error = join(Some(&missing), 1 << 20).unwrap_err().to_string();
        assert!(error.contains("cannot read") && error.contains("--jail-cgroup"), "{error}");
    }
}
