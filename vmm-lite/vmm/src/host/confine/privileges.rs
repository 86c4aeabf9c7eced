//! The privileges that the process was started with.
//!
//! With `--user` the process becomes that user for good: no supplementary groups, no capabilities,
//! and no way to regain them. Real-time priority for the threads of a switch (see
//! [`Urgent`](crate::host::urgent::Urgent)) needs no capability where the process may first raise
//! its own limit. Where it may not (containers often have no CAP_SYS_RESOURCE), the threads that
//! use real-time priority keep CAP_SYS_NICE, if they had it; their filters allow one call that uses
//! it. A process that stays root keeps the capability to open a TAP device, and only in the threads
//! that open one.

use super::{Error, Thread};
use crate::host::urgent::Side;
use nix::unistd::{Gid, Group, Uid, User, setgroups, setresgid, setresuid};
use serde::{Deserialize, Serialize};
use std::{
    io,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

/// The real-time priority of a switch's threads.
const RTPRIO: libc::rlim_t = Side::Source as libc::rlim_t;
/// Descriptors that a process may have. Connections are limited to far fewer.
const NOFILE: libc::rlim_t = 1024;
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_NICE: u32 = 23;
/// Capabilities are 64 bits, in two words.
const CAPABILITIES: i32 = 64;

/// Capabilities for the threads of a switch.
static URGENT: AtomicU32 = AtomicU32::new(0);

/// The user to become.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    uid: u32,
    gid: u32,
}

impl Identity {
    /// The user named (or numbered) `user` with `group`, or else the user's own group. `None` if
    /// neither is given.
    ///
    /// # Errors
    /// [`Error::Who`].
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Error> {
        let Some(name) = user else { return Ok(None) };
        if !Uid::effective().is_root() {
            return Err(Error::Who("only root can become another user (--user)".into()));
        }
        let look_up = |e: nix::Error| Error::Call { doing: "look up the user", source: e.into() };
        let user = match name.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)).map_err(look_up)?,
            Err(_) => User::from_name(name).map_err(look_up)?,
        };
        let uid = match (&user, name.parse()) {
            (Some(user), _) => user.uid,
            (None, Ok(uid)) => Uid::from_raw(uid),
            (None, Err(_)) => return Err(Error::Who(format!("there is no user {name}"))),
        };
        let gid = match (group, user) {
            (Some(group), _) => find_group(group)?,
            (None, Some(user)) => user.gid,
            (None, None) => {
                return Err(Error::Who(format!(
                    "no user has the number {name}: name a --group too"
                )));
            }
        };
        if uid.is_root() {
            return Err(Error::Who("--user must name another user than root".into()));
        }
        Ok(Some(Self { uid: uid.as_raw(), gid: gid.as_raw() }))
    }
}

impl Identity {
    /// A user with a group of the same number. The host need not know it.
    #[must_use]
    pub fn numbered(id: u32) -> Self {
        Self { uid: id, gid: id }
    }

    /// The user's number.
    #[must_use]
    pub fn uid(self) -> u32 {
        self.uid
    }
}

fn find_group(name: &str) -> Result<Gid, Error> {
    if let Ok(gid) = name.parse() {
        return Ok(Gid::from_raw(gid));
    }
    let look_up = |e: nix::Error| Error::Call { doing: "look up the group", source: e.into() };
    let group = Group::from_name(name).map_err(look_up)?;
    group.map(|g| g.gid).ok_or_else(|| Error::Who(format!("there is no group {name}")))
}

/// Gives up what the process does not need from now on. Call it while there is only one thread.
///
/// # Errors
/// [`Error::Call`]: the process must not continue then.
pub fn drop_to(identity: Option<Identity>) -> Result<(), Error> {
    let failed = |doing| move |e: nix::Error| Error::Call { doing, source: e.into() };
    let capability = |source| Error::Call { doing: "give up capabilities", source };
    if !set_limits() {
        URGENT.store(1 << CAP_SYS_NICE & permitted().map_err(capability)?, Relaxed);
    }
    clear_bounding_set();
    nix::sys::prctl::set_no_new_privs().map_err(failed("give up gaining privileges"))?;
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let Some(Identity { uid, gid }) = identity else { return Ok(()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[]).map_err(failed("leave the supplementary groups (--user)"))?;
    setresgid(gid, gid, gid).map_err(failed("change the group (--group)"))?;
    // The capabilities to keep survive this change, and no others survive what follows.
    nix::sys::prctl::set_keepcaps(true).map_err(failed("keep a capability"))?;
    setresuid(uid, uid, uid).map_err(failed("change the user (--user)"))?;
    set_capabilities(URGENT.load(Relaxed)).map_err(capability)?;
    nix::sys::prctl::set_keepcaps(false).map_err(failed("give up capabilities"))
}

/// Gives up the capabilities of the calling thread that its kind does not need.
pub(super) fn drop_thread_capabilities(thread: Thread) -> Result<(), Error> {
    let failed = |source| Error::Call { doing: "give up capabilities", source };
    let keep = match thread {
        Thread::Accept | Thread::Receive => URGENT.load(Relaxed) | 1 << CAP_NET_ADMIN,
        // The main thread keeps them for the threads that it starts.
        Thread::Main | Thread::Control | Thread::Arrived | Thread::Replication => {
            URGENT.load(Relaxed)
        }
        Thread::Vcpu
        | Thread::Stdin
        | Thread::ConsoleIn
        | Thread::Metrics
        | Thread::Loader
        | Thread::Announce
        | Thread::Signer
        | Thread::Journal
        | Thread::Replay
        | Thread::Snapshots
        | Thread::Watchdog
        | Thread::Connector
        | Thread::Packets => 0,
    };
    set_capabilities(keep & permitted().map_err(failed)?).map_err(failed)
}

/// Forbids core dumps, which would hold the guest's memory. Makes the current soft limit the hard
/// limit. Returns whether threads may have real-time priority without a capability.
fn set_limits() -> bool {
    let limit = |resource, most: libc::rlim_t| {
        let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: valid pointers; a host that refuses leaves the limit unchanged.
        unsafe {
            if libc::getrlimit(resource, &raw mut now) == 0 {
                let to = libc::rlimit {
                    rlim_cur: now.rlim_cur.min(most),
                    rlim_max: now.rlim_max.min(most),
                };
                libc::setrlimit(resource, &raw const to);
            }
        }
    };
    limit(libc::RLIMIT_CORE, 0);
    limit(libc::RLIMIT_NOFILE, NOFILE);
    let urgent = libc::rlimit { rlim_cur: RTPRIO, rlim_max: RTPRIO };
    // SAFETY: a valid pointer.
    unsafe { libc::setrlimit(libc::RLIMIT_RTPRIO, &raw const urgent) == 0 }
}

/// No program that this process might execute gains capabilities. A process that may not clear the
/// bounding set has none to gain.
fn clear_bounding_set() {
    for capability in 0..CAPABILITIES {
        // SAFETY: no pointers. The first capability that does not exist ends the loop.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            break;
        }
    }
}

/// `struct __user_cap_header_struct`, version 3.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The calling thread's capabilities, lower word.
fn permitted() -> io::Result<u32> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: both structures have version 3's layout.
    match unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } {
        0 => Ok(data[0].permitted),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the calling thread's capabilities to exactly these.
fn set_capabilities(lower: u32) -> io::Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let lower = Data { effective: lower, permitted: lower, inheritable: 0 };
    let data = [lower, Data::default()];
    // SAFETY: as above.
    match unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        if !Uid::effective().is_root() {
            return vmm_lite_lab::skipped("users", "only root may become another user");
        }
        assert_eq!(Identity::find(None, None).unwrap(), None);
        let nobody = Identity::find(Some("nobody"), None).unwrap().unwrap();
        assert_eq!(Identity::find(Some(&nobody.uid.to_string()), None).unwrap(), Some(nobody));
        let other = Identity::find(Some("3999999"), Some("7")).unwrap().unwrap();
        assert_eq!((other.uid, other.gid), (3_999_999, 7));
        for (user, group, said) in [
            ("no-such-user", None, "there is no user no-such-user"),
            ("3999999", None, "name a --group too"),
            ("nobody", Some("no-such-group"), "there is no group"),
            ("root", None, "another user than root"),
        ] {
            let error = Identity::find(Some(user), group).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
