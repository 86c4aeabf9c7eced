//! Directories for control sockets that are removed however the program ends.
//!
//! Dropping one removes it. SIGINT and SIGTERM remove them in a program that called
//! [`remove_on_signals`]. The next program removes what a killed program left behind: the names
//! contain the pid.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    sys::signal::{SigSet, Signal},
    unistd::geteuid,
};

use crate::error::{Doing, Result};

const PREFIX: &str = "vmm-lite-lab-";

/// A directory for the control sockets of one host of one lab, so that tests do not see each
/// other's VMs.
#[derive(Debug)]
pub struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// Makes one under the system's temporary directory, for this user only.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        if n == 0 {
            remove(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        }
        let path = env::temp_dir().join(format!("{PREFIX}{}-{n}", process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .doing(format!("make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        // The next run removes what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// From now on SIGINT and SIGTERM remove the directories and end the program, with the exit code
/// that a shell gives for the signal. Call it before other threads are started.
///
/// # Errors
/// If signals cannot be blocked.
pub fn remove_on_signals() -> Result<()> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().doing("block signals")?;
    thread::spawn(move || {
        let code = signals.wait().map_or(1, |signal| 128 + signal as i32);
        remove(|pid| pid == process::id());
        process::exit(code);
    });
    Ok(())
}

/// Removes this user's directories with pids that `of` picks. What cannot be removed stays for the
/// next run.
fn remove(of: impl Fn(u32) -> bool) {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(pid_of);
        let ours = |m: io::Result<fs::Metadata>| m.is_ok_and(|m| m.uid() == geteuid().as_raw());
        if pid.is_some_and(&of) && ours(entry.metadata()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn pids_are_in_the_names() {
        assert_eq!(pid_of("vmm-lite-lab-123-4"), Some(123));
        assert_eq!(pid_of("vmm-lite-lab-x-4"), None);
        assert_eq!(pid_of("something-else"), None);
    }

    #[test]
    fn directories_of_ended_processes_are_removed_and_no_others() {
        let mut child = Command::new("true").spawn().unwrap();
        let dead = child.id();
        child.wait().unwrap();
        let left = env::temp_dir().join(format!("{PREFIX}{dead}-0"));
        let living = env::temp_dir().join(format!("{PREFIX}{}-99", process::id()));
        for dir in [&left, &living] {
            fs::create_dir_all(dir.join("vmm-lite")).unwrap();
        }
        remove(|pid| pid == dead);
        assert!(!left.exists() && living.exists());
        fs::remove_dir_all(living).unwrap();
    }
}
