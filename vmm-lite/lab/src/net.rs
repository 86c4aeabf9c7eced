//! Network namespaces held by a file descriptor.
//!
//! A namespace made here has no name under `/run/netns`: it, its bridges, veths and TAPs exist as
//! long as this process or one of its children, and disappear however those end, including by
//! SIGKILL.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    process::Command,
    sync::Arc,
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Doing, Error, Result};

/// A network namespace. Clones share it.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Its name in messages.
    pub name: String,
    fd: Arc<File>,
}

impl Namespace {
    /// Makes an empty namespace with its loopback up.
    ///
    /// # Errors
    /// [`Error::Privilege`] if this user may not make one.
    pub fn new(name: &str) -> Result<Self> {
        // A namespace belongs to a thread, so a short-lived thread makes it and leaves its
        // descriptor.
        let made = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| {
                Error::Privilege(format!(
                    "cannot make a network namespace ({e}): run as root, or in `unshare --user \
                     --map-root-user --net`"
                ))
            })?;
            File::open("/proc/thread-self/ns/net").doing("open /proc/thread-self/ns/net")
        })
        .join()
        .expect("the thread that makes a namespace does not panic")?;
        let ns = Self { name: name.into(), fd: Arc::new(made) };
        ns.ip(["link", "set", "dev", "lo", "up"])?;
        Ok(ns)
    }

    /// A command that will run inside the namespace and end with this process.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        // SAFETY: the closure makes two system calls and allocates nothing, as is required between
        // fork and exec.
        unsafe {
            command.pre_exec(move || {
                setns(&*fd, CloneFlags::CLONE_NEWNET)?;
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                Ok(())
            });
        }
        command
    }

    /// Runs `f` on a thread of its own inside the namespace and waits for it: sockets that `f`
    /// makes stay in the namespace.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    ///
    /// # Panics
    /// If `f` does.
    pub fn enter<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let fd = Arc::clone(&self.fd);
        let ran = thread::spawn(move || -> Result<T> {
            setns(&*fd, CloneFlags::CLONE_NEWNET).doing("enter a network namespace")?;
            Ok(f())
        })
        .join();
        match ran {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `ip ARGS` inside the namespace.
    ///
    /// # Errors
    /// [`Error::Command`] with the error of `ip`.
    pub fn ip<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let args: Vec<&str> = args.into_iter().collect();
        let out = self.command("ip").args(&args).output().map_err(|source| Error::Io {
            what: "start `ip` (Debian package iproute2)".into(),
            source,
        })?;
        if out.status.success() {
            return Ok(());
        }
        Err(Error::Command {
            command: format!("ip {}  [in {}]", args.join(" "), self.name),
            status: out.status.to_string(),
            stderr: String::from_utf8_lossy(&out.stderr).trim().into(),
        })
    }

    /// Makes a bridge that forwards at once (no spanning tree, no delay).
    ///
    /// # Errors
    /// As [`Self::ip`].
    pub fn bridge(&self, name: &str) -> Result<()> {
        self.ip(["link", "add", name, "type", "bridge", "stp_state", "0", "forward_delay", "0"])?;
        // Without snooping a bridge does not wait for multicast queries, and IPv6 traffic stays out
        // of the measurements.
        self.ip(["link", "set", "dev", name, "type", "bridge", "mcast_snooping", "0"])?;
        self.ip(["link", "set", "dev", name, "addrgenmode", "none"])?;
        self.ip(["link", "set", "dev", name, "up"])
    }

    /// Makes a TAP device, attached to `bridge`.
    ///
    /// # Errors
    /// As [`Self::ip`].
    pub fn tap(&self, name: &str, bridge: &str) -> Result<()> {
        self.ip(["tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr"])?;
        self.ip(["link", "set", "dev", name, "addrgenmode", "none"])?;
        self.ip(["link", "set", "dev", name, "master", bridge])?;
        self.ip(["link", "set", "dev", name, "up"])
    }

    /// Joins this namespace to `other` by a veth pair: `mine` here, `theirs` there, both up.
    ///
    /// # Errors
    /// As [`Self::ip`].
    pub fn veth(&self, mine: &str, other: &Self, theirs: &str) -> Result<()> {
        let there = other.path();
        self.ip(["link", "add", mine, "type", "veth", "peer", "name", theirs, "netns", &there])?;
        for (ns, name) in [(self, mine), (other, theirs)] {
            ns.ip(["link", "set", "dev", name, "addrgenmode", "none"])?;
            ns.ip(["link", "set", "dev", name, "up"])?;
        }
        Ok(())
    }

    /// Segments that the namespace's TCP has retransmitted so far, on all of its connections.
    ///
    /// # Errors
    /// If the kernel does not report it.
    pub fn tcp_retransmissions(&self) -> Result<u64> {
        const FILE: &str = "/proc/thread-self/net/snmp";
        let text = self.enter(|| std::fs::read_to_string(FILE))?.doing(format!("read {FILE}"))?;
        tcp_counter(&text, "RetransSegs")
            .ok_or_else(|| Error::Protocol { what: FILE.into(), said: text })
    }

    /// The path by which other processes of this user find the namespace.
    fn path(&self) -> String {
        let fd: RawFd = self.fd.as_raw_fd();
        format!("/proc/{}/fd/{fd}", std::process::id())
    }
}

/// A counter from a namespace's `snmp`: a line of names for each protocol, then one of values.
fn tcp_counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split(' ').position(|n| n == name)?;
    values.split(' ').nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_their_names() {
        let text = "Ip: Forwarding\nIp: 1\nTcp: MaxConn InSegs RetransSegs\nTcp: -1 17 4\n";
        assert_eq!(tcp_counter(text, "RetransSegs"), Some(4));
        assert_eq!(tcp_counter(text, "MaxConn"), None, "below zero is no count");
        assert_eq!(tcp_counter("Ip: Forwarding\nIp: 1\n", "InSegs"), None);
    }
}
