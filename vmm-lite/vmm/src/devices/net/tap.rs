//! TAP devices: the host's end of a guest's network.

mod packets;

use super::{backend::VNET_HEADER, link};
use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    net::Shutdown,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::{fs::OpenOptionsExt, net::UnixDatagram},
    },
    sync::Arc,
    time::{Duration, Instant},
};

const TUN: &str = "/dev/net/tun";

// From linux/if_tun.h and linux/sockios.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;

/// The longest MTU of a TAP device.
const MTU_MAX: u16 = 65_521;

/// How long another process may hold the device of a VM whose process has died: see
/// [`PacketKeeper`](crate::replication::protection::PacketKeeper).
pub(crate) const KEPT_MAX: Duration = Duration::from_millis(300);
/// How often a device is tried that may be such a one. The kernel tells that one is free once a
/// second at most.
const TRY_EVERY: Duration = Duration::from_millis(2);

/// Why a TAP device could not be used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// It does not exist.
    #[error(
        "there is no network device {0}; make it with `ip tuntap add {0} mode tap user $USER && ip \
         link set {0} up`"
    )]
    Missing(String),
    /// Another process has it open.
    #[error("TAP device {0} is busy: another process, maybe another VM, has it open")]
    Busy(String),
    /// The user has no permission.
    #[error(
        "no permission to use TAP device {0}: make it for this user with `ip tuntap add {0} mode \
         tap user $USER`, or run as root"
    )]
    NoPermission(String),
    /// A device of another kind has that name.
    #[error("network device {0} is not a TAP device (or one with several queues)")]
    NotTap(String),
    /// No network device can have this name.
    #[error("{0:?} cannot be the name of a network device")]
    Name(String),
    /// No TUN/TAP on this host.
    #[error(
        "{TUN} cannot be opened: load the module with `modprobe tun`; in a container, pass the \
         device in"
    )]
    NoTun(#[source] io::Error),
    /// A call failed.
    #[error("cannot {doing} TAP device {name}")]
    Call {
        /// What was tried.
        doing: &'static str,
        /// The device.
        name: String,
        /// The kernel's error.
        source: io::Error,
    },
}

/// An open TAP device in non-blocking mode.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    /// `None` where there is no device.
    network: Option<Arc<Network>>,
}

/// Sockets in the device's network namespace, which this process may leave.
#[derive(Debug)]
struct Network {
    /// For queries.
    asks: OwnedFd,
    /// For changes.
    events: OwnedFd,
}

impl Tap {
    /// Opens the device `name`, which must exist in this network namespace.
    ///
    /// # Errors
    /// An [`Error`] that says how the user can fix it.
    pub fn open(name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0', ' ', '%']) {
            return Err(Error::Name(name.into()));
        }
        // Opening a name that does not exist would create a device if the process is root's.
        let c_name = CString::new(name).map_err(|_| Error::Name(name.into()))?;
        // SAFETY: a NUL-terminated string.
        if unsafe { libc::if_nametoindex(c_name.as_ptr()) } == 0 {
            return Err(Error::Missing(name.into()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(TUN)
            .map_err(|e| match e.kind() {
                io::ErrorKind::PermissionDenied => Error::NoPermission(name.into()),
                _ => Error::NoTun(e),
            })?;
        let network = Network::here().map_err(|source| Error::Call {
            doing: "make a socket to ask about",
            name: name.into(),
            source,
        })?;
        let tap = Self { file, name: name.into(), network: Some(Arc::new(network)) };
        let mut request = tap.request();
        request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
        let end = Instant::now() + KEPT_MAX + TRY_EVERY;
        // SAFETY: the request is valid and outlives the call.
        while unsafe { libc::ioctl(tap.fd(), TUNSETIFF, &raw const request) } < 0 {
            let e = io::Error::last_os_error();
            return Err(match e.raw_os_error() {
                Some(libc::EBUSY) if Instant::now() < end => {
                    std::thread::sleep(TRY_EVERY);
                    continue;
                }
                Some(libc::EBUSY) => Error::Busy(name.into()),
                Some(libc::EPERM | libc::EACCES) => Error::NoPermission(name.into()),
                Some(libc::EINVAL) => Error::NotTap(name.into()),
                _ => Error::Call { doing: "attach to", name: name.into(), source: e },
            });
        }
        let size = VNET_HEADER as libc::c_int;
        // SAFETY: the argument is an int that outlives the call.
        let r = unsafe { libc::ioctl(tap.fd(), TUNSETVNETHDRSZ, &raw const size) };
        tap.check(r, "set the header size of")?;
        tap.set_offload(0)?;
        Ok(tap)
    }

    /// Uses, in place of a device, a non-blocking descriptor with message boundaries, such as one
    /// end of a socket pair: for tests of what guests do to their queues.
    #[must_use]
    pub fn over(descriptor: OwnedFd) -> Self {
        Self { file: descriptor.into(), name: "none".into(), network: None }
    }

    /// A network with nothing on it, for a VM that is only replayed.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn nothing() -> io::Result<Self> {
        let (here, there) = UnixDatagram::pair()?;
        here.set_nonblocking(true)?;
        // What is sent is lost, and nothing comes.
        there.shutdown(Shutdown::Both)?;
        Ok(Self::over(here.into()))
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: integers, arrays and unions of them, for which zero is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request
    }

    fn check(&self, r: libc::c_int, doing: &'static str) -> Result<(), Error> {
        if r >= 0 {
            return Ok(());
        }
        Err(self.failed(doing, io::Error::last_os_error()))
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> Error {
        Error::Call { doing, name: self.name.clone(), source }
    }

    /// Sets the offloads that the guest accepts: a set of `TUN_F_*`.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn set_offload(&self, flags: u32) -> Result<(), Error> {
        if self.network.is_none() {
            return Ok(());
        }
        // SAFETY: the argument is a number.
        let r = unsafe { libc::ioctl(self.fd(), TUNSETOFFLOAD, libc::c_ulong::from(flags)) };
        self.check(r, "set the offloads of")
    }

    /// The device's MTU, and whether it is up.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn mtu_and_up(&self) -> Result<(u16, bool), Error> {
        if self.network.is_none() {
            return Ok((MTU_MAX, true));
        }
        let failed = |source| self.failed("ask about", source);
        let mtu = self.ask(libc::SIOCGIFMTU).map_err(failed)?;
        // SAFETY: the call succeeded and has filled this field.
        let mtu = unsafe { mtu.ifr_ifru.ifru_mtu };
        let up = self.flags().map_err(failed)? & libc::IFF_UP != 0;
        Ok((mtu.clamp(68, MTU_MAX.into()) as u16, up))
    }

    /// Whether packets that the host sends through it reach the guest.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn running(&self) -> io::Result<bool> {
        Ok(self.flags()? & libc::IFF_RUNNING != 0)
    }

    fn flags(&self) -> io::Result<i32> {
        let flags = self.ask(libc::SIOCGIFFLAGS)?;
        // SAFETY: the call succeeded and has filled this field.
        Ok(unsafe { flags.ifr_ifru.ifru_flags }.into())
    }

    /// A socket that becomes readable when any link of the device's network namespace has changed,
    /// while it [listens](link).
    pub(super) fn events(&self) -> io::Result<&OwnedFd> {
        Ok(&self.network()?.events)
    }

    fn network(&self) -> io::Result<&Network> {
        self.network.as_deref().ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Queries the kernel about this interface; any socket in its network namespace can.
    fn ask(&self, what: libc::c_ulong) -> io::Result<libc::ifreq> {
        let socket = &self.network()?.asks;
        let mut request = self.request();
        // SAFETY: the request is valid and outlives the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), what, &raw mut request) } {
            r if r >= 0 => Ok(request),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The descriptor, to be polled.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Another handle for the same device.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn try_clone(&self) -> Result<Self, Error> {
        let file = self.file.try_clone();
        let file = file.map_err(|source| self.failed("get another handle on", source))?;
        Ok(Self { file, name: self.name.clone(), network: self.network.clone() })
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Network {
    /// The socket belongs to this thread's network namespace.
    fn here() -> io::Result<Self> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let asks = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { asks, events: link::events()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_device_is_not_created() {
        let error = Tap::open("vmmnone0").unwrap_err();
        assert!(matches!(error, Error::Missing(_)));
        assert!(error.to_string().contains("ip tuntap add vmmnone0 mode tap"), "{error}");
    }

    #[test]
    fn names_that_no_device_has_are_refused() {
        for name in ["", "a/b", "sixteencharacter", "tap%d", "a b"] {
            assert!(matches!(Tap::open(name), Err(Error::Name(_))), "{name}");
        }
    }

    #[test]
    fn the_loopback_is_no_tap() {
        match Tap::open("lo") {
            Err(Error::NotTap(_)) => {}
            Err(e @ (Error::NoPermission(_) | Error::NoTun(_))) => {
                vmm_lite_lab::skipped("the loopback as a TAP", e);
            }
            other => panic!("{other:?}"),
        }
    }
}
