//! The directory of control sockets, and the names in it.
//!
//! A VM owns its name as long as it holds the lock on `NAME.lock`, which the kernel releases
//! however the process ends. The next process that needs the name or lists the directory removes
//! the files of a dead one, under the lock of the directory itself, so that it never removes a file
//! that was just made.

use super::Error;
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::{
            fs::{DirBuilderExt, MetadataExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

const NAME_MAX: usize = 64;

/// Checks that `name` can be a VM's.
///
/// # Errors
/// [`Error::Name`].
pub fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty()
        || name.len() > NAME_MAX
        || name.starts_with(['.', '-'])
        || !name.chars().all(fine)
    {
        return Err(Error::Name(name.into()));
    }
    Ok(())
}

/// The directory of control sockets of one user.
#[derive(Clone, Debug)]
pub struct RuntimeDir {
    path: PathBuf,
}

impl RuntimeDir {
    /// The user's directory: `$XDG_RUNTIME_DIR/vmm-lite`, else `/run/vmm-lite` for root and
    /// `/tmp/vmm-lite-UID` for others.
    ///
    /// # Errors
    /// [`Error::Directory`], [`Error::Unsafe`].
    pub fn open() -> Result<Self, Error> {
        // SAFETY: no arguments, cannot fail.
        let uid = unsafe { libc::geteuid() };
        let path = match std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty()) {
            Some(dir) => Path::new(&dir).join("vmm-lite"),
            None if uid == 0 => "/run/vmm-lite".into(),
            None => format!("/tmp/vmm-lite-{uid}").into(),
        };
        Self::open_at(path, uid)
    }

    fn open_at(path: PathBuf, uid: u32) -> Result<Self, Error> {
        let failed = |source| Error::Directory { path: path.clone(), source };
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed(e)),
            _ => {}
        }
        let found = fs::symlink_metadata(&path).map_err(failed)?;
        if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
            return Err(Error::Unsafe(path));
        }
        Ok(Self { path })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self, name: &str, extension: &str) -> PathBuf {
        self.path.join(format!("{name}.{extension}"))
    }

    /// The socket of the VM `name`.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.file(name, "sock")
    }

    /// A lock that serializes changes to the directory.
    fn lock(&self) -> Result<File, Error> {
        let failed = |source| Error::Directory { path: self.path.clone(), source };
        let file = files::open_lock(&self.path.join(".lock")).map_err(failed)?;
        lock(&file).map_err(failed)?;
        Ok(file)
    }

    /// Claims `name` for this process, with its socket, which listens.
    ///
    /// # Errors
    /// [`Error::Taken`], [`Error::Name`], and the host's errors.
    pub fn claim(&self, name: &str) -> Result<Claim, Error> {
        let claim = self.reserve(name)?;
        claim.listen()?;
        Ok(claim)
    }

    /// Claims `name` for this process. Clients are refused before [`Claim::listen`], as if the VM
    /// did not exist.
    ///
    /// # Errors
    /// As [`claim`](Self::claim).
    pub fn reserve(&self, name: &str) -> Result<Claim, Error> {
        check_name(name)?;
        let failed = |doing| {
            let name = name.to_owned();
            move |source| Error::Socket { doing, name, source }
        };
        let directory = self.lock()?;
        let lock = files::open_lock(&self.file(name, "lock")).map_err(failed("lock"))?;
        if !try_lock(&lock).map_err(failed("lock"))? {
            return Err(Error::Taken(name.into()));
        }
        // The process id is for the operator.
        note_pid(&lock).map_err(failed("lock"))?;
        let socket = self.socket(name);
        match fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("replace")(e)),
            _ => {}
        }
        let listener = bind(&socket).map_err(failed("make"))?;
        unlock(&directory);
        Ok(Claim { dir: self.clone(), name: name.into(), listener, directory, _lock: lock })
    }

    /// The names of running VMs, sorted. Files of dead VMs are removed.
    ///
    /// # Errors
    /// [`Error::Directory`].
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let failed = |source| Error::Directory { path: self.path.clone(), source };
        let _directory = self.lock()?;
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let file = entry.map_err(failed)?.file_name();
            let Some(name) = file.to_str().and_then(|f| f.strip_suffix(".lock")) else { continue };
            if check_name(name).is_err() {
                continue;
            }
            let path = self.file(name, "lock");
            // A file that is not a lock is not a VM's, and does not hide the others.
            let lock = match files::open_lock(&path) {
                Ok(lock) => lock,
                Err(e) => {
                    tracing::warn!("{} is passed over: {e}", path.display());
                    continue;
                }
            };
            if try_lock(&lock).map_err(failed)? {
                self.remove(name);
            } else {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Removes the files of `name`; the caller holds the directory's lock.
    fn remove(&self, name: &str) {
        for extension in ["sock", "lock"] {
            let path = self.file(name, extension);
            match fs::remove_file(&path) {
                // A process that has changed its user leaves its files to the next process (see
                // `names`).
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    tracing::debug!("cannot remove {}: {e}", path.display());
                }
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!("cannot remove {}: {e}", path.display());
                }
                _ => {}
            }
        }
    }
}

/// Writes this process's id into a file just opened, over the content of a dead process, without
/// truncating the file first: that would take a disk half a millisecond.
fn note_pid(mut lock: &File) -> io::Result<()> {
    let line = format!("{}\n", std::process::id());
    lock.write_all(line.as_bytes())?;
    if lock.metadata()?.len() > line.len() as u64 {
        lock.set_len(line.len() as u64)?;
    }
    Ok(())
}

/// Makes a socket at `path` that does not listen yet.
fn bind(path: &Path) -> io::Result<UnixListener> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
}

fn lock(file: &File) -> io::Result<()> {
    // SAFETY: an open descriptor.
    while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
        let e = io::Error::last_os_error();
        if e.kind() != io::ErrorKind::Interrupted {
            return Err(e);
        }
    }
    Ok(())
}

fn unlock(file: &File) {
    // SAFETY: an open descriptor; releasing a lock does not fail.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) };
}

/// Whether the lock was acquired.
fn try_lock(file: &File) -> io::Result<bool> {
    // SAFETY: an open descriptor.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        e => Err(e),
    }
}

/// A name that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct Claim {
    dir: RuntimeDir,
    name: String,
    listener: UnixListener,
    /// The lock of the directory, not held: when this is dropped the process may not be able to
    /// open files any more.
    directory: File,
    _lock: File,
}

impl Claim {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The socket that clients connect to.
    #[must_use]
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Listens for clients. Further calls have no effect.
    ///
    /// # Errors
    /// The host's error.
    pub fn listen(&self) -> Result<(), Error> {
        use nix::sys::socket::{Backlog, listen};
        listen(&self.listener, Backlog::MAXCONN).map_err(|e| Error::Socket {
            doing: "listen on",
            name: self.name.clone(),
            source: e.into(),
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        match lock(&self.directory) {
            Ok(()) => self.dir.remove(&self.name),
            Err(e) => tracing::warn!("the control socket stays behind: {e}"),
        }
        unlock(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn dir(of: &str) -> RuntimeDir {
        let path = std::env::temp_dir().join(format!("vmm-lite-dir-{of}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        // SAFETY: no arguments, cannot fail.
        RuntimeDir::open_at(path, unsafe { libc::geteuid() }).unwrap()
    }

    #[test]
    fn a_name_belongs_to_one_process() {
        let dir = dir("claim");
        let first = dir.claim("kv").unwrap();
        let error = dir.claim("kv").unwrap_err();
        assert!(error.to_string().contains("a VM named kv runs already"), "{error}");
        let other = dir.claim("kw").unwrap();
        assert_eq!(dir.names().unwrap(), ["kv", "kw"]);
        drop(first);
        assert!(!dir.socket("kv").exists());
        assert_eq!(dir.names().unwrap(), ["kw"]);
        dir.claim("kv").unwrap();
        drop(other);
        fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn files_of_dead_processes_are_removed() {
        let dir = dir("stale");
        for name in ["old", "older"] {
            fs::write(dir.file(name, "lock"), "12345678901\n").unwrap();
            drop(UnixListener::bind(dir.socket(name)).unwrap());
        }
        let claim = dir.claim("old").unwrap();
        let pid = fs::read_to_string(dir.file("old", "lock")).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
        assert_eq!(dir.names().unwrap(), ["old"]);
        assert!(!dir.socket("older").exists() && !dir.file("older", "lock").exists());
        drop(claim);
        fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let dir = dir("unsafe");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // SAFETY: no arguments, cannot fail.
        let uid = unsafe { libc::geteuid() };
        assert!(matches!(RuntimeDir::open_at(dir.path().into(), uid), Err(Error::Unsafe(_))));
        fs::remove_dir_all(dir.path()).unwrap();
    }

    #[test]
    fn names_that_are_no_file_names_are_refused() {
        for name in ["", ".", "../x", "a/b", "a b", "-v", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
        check_name("kv-2.test_1").unwrap();
    }
}
