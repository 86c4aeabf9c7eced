//! Paths that refer to something other than a regular file.

use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    fs,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
    sync::mpsc,
    time::Duration,
};

/// Makes, in `dir`, one of each kind that is not a regular file, and describes each.
///
/// # Panics
/// If one cannot be made.
#[must_use]
pub fn odd_paths(dir: &Path) -> Vec<(PathBuf, &'static str)> {
    let at = |name: &str| dir.join(name);
    mkfifo(&at("fifo"), Mode::S_IRWXU).unwrap();
    drop(UnixListener::bind(at("socket")).unwrap());
    fs::create_dir(at("directory")).unwrap();
    symlink(at("fifo"), at("to-fifo")).unwrap();
    symlink("/dev/null", at("to-device")).unwrap();
    vec![
        (at("fifo"), "FIFO"),
        (at("socket"), "socket"),
        (at("directory"), "directory"),
        (at("to-fifo"), "FIFO"),
        (at("to-device"), "device"),
    ]
}

/// Runs `f`, which must not wait for another process, and returns its value.
///
/// # Panics
/// If it waits.
pub fn at_once<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, value) = mpsc::channel();
    std::thread::spawn(move || done.send(f()));
    value.recv_timeout(Duration::from_secs(60)).expect("it waits")
}
