//! A process that connects for a VM whose own process has no network: see
//! [`network`](crate::host::confine::jail::network).
//!
//! `vmm-lite migrate` starts it in its own network namespace, passes it the destination's
//! addresses, and passes its socket to the VM. The VM requests a connection to one of the
//! addresses, by its index in that list, and gets a socket that is connecting: a socket stays in
//! the network namespace in which it was made. The connector makes no other connections. It ends
//! when the VM's process closes its socket at the end of the move.

use crate::{
    host::{
        beside::{beside, leave_behind},
        confine::{self, Mode, Thread, privileges},
    },
    identity::signer::socket,
};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::{
    ffi::CStr,
    fs::File,
    io::{self, IoSlice, IoSliceMut},
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The process's name, as the host shows it.
const NAME: &CStr = c"vmm-connector";
/// Maximum length of an address list in bytes.
const LIST_MAX: usize = 4096;
/// The timeout for a socket, which is made in microseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connector that has no addresses yet.
#[derive(Debug)]
pub struct Connector {
    socket: OwnedFd,
}

impl Connector {
    /// Starts a connector, detached from this process. Call it while there is only one thread.
    ///
    /// # Errors
    /// The host's error.
    pub fn start() -> io::Result<Self> {
        let (socket, _) = beside(|socket, _| {
            if confined(socket).is_ok() {
                serve(socket);
            }
        })?;
        Ok(Self { socket })
    }

    /// Allows connections to these addresses, in this order, and to no others.
    ///
    /// # Errors
    /// The socket's error.
    pub fn allow(&self, addresses: &[SocketAddr]) -> io::Result<()> {
        let list = postcard::to_stdvec(addresses).map_err(io::Error::other)?;
        socket::put(&self.socket, &list)
    }

    /// The socket for the VM.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn confined(socket: &OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
    leave_behind(NAME, Mode::Kill, &[socket.as_raw_fd()])?;
    privileges::drop_to(None)?;
    confine::arm(Mode::Kill)?;
    Ok(confine::enter(Thread::Connector)?)
}

/// Connects on request, until the other end is closed.
fn serve(socket: &OwnedFd) {
    let mut list = vec![0; LIST_MAX];
    let Ok(n) = socket::take(socket, &mut list) else { return };
    let Ok(addresses) = postcard::from_bytes::<Vec<SocketAddr>>(&list[..n]) else { return };
    loop {
        let mut place = [0; 2];
        let Ok(1) = socket::take(socket, &mut place) else { return };
        let Some(to) = addresses.get(usize::from(place[0])) else { return };
        let (answer, begun) = match super::reach::begin(*to) {
            Ok(begun) => (0, Some(begun)),
            Err(e) => (e.raw_os_error().unwrap_or(libc::EIO), None),
        };
        let fds: Vec<RawFd> = begun.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights };
        let answer = answer.to_le_bytes();
        let flags = MsgFlags::MSG_NOSIGNAL;
        if sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&answer)], rights, flags, None).is_err()
        {
            return;
        }
    }
}

/// The VM's end.
#[derive(Clone, Debug)]
pub struct Dialer(Arc<Mutex<OwnedFd>>);

impl PartialEq for Dialer {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Dialer {}

impl Dialer {
    /// From the socket that came with a request. The connector ends with the last copy.
    #[must_use]
    pub fn new(socket: File) -> Self {
        Self(Arc::new(Mutex::new(socket.into())))
    }

    /// Begins to connect to the address at this index of the list.
    ///
    /// # Errors
    /// The network's error, or that the connector has ended.
    pub fn begin(&self, place: usize) -> io::Result<OwnedFd> {
        let place = u8::try_from(place).map_err(|_| io::ErrorKind::AddrNotAvailable)?;
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        socket::put(&socket, &[place])?;
        let [answered, _] = socket::wait([Some(&socket), None], Some(TIMEOUT))?;
        if !answered {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let (mut answer, mut room) = ([0; 4], nix::cmsg_space!([RawFd; 1]));
        let mut iov = [IoSliceMut::new(&mut answer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut room), flags)?;
        let mut begun = None;
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: the kernel has just made it for this process, and it has no other
                    // owner.
                    begun = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        let whole = message.bytes == answer.len();
        match (whole, i32::from_le_bytes(answer), begun) {
            (true, 0, Some(begun)) => Ok(begun),
            (true, e @ 1.., _) => Err(io::Error::from_raw_os_error(e)),
            _ => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the process that connects for this VM has ended",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{net::TcpListener, thread};

    #[test]
    fn it_connects_to_allowed_addresses_and_ends_at_other_requests() {
        let there = TcpListener::bind("127.0.0.1:0").unwrap();
        let right = there.local_addr().unwrap();
        for asked in [1, 2] {
            let (here, theirs) = crate::host::beside::pair().unwrap();
            let connector = Connector { socket: here.try_clone().unwrap() };
            let serving = thread::spawn(move || serve(&theirs));
            connector.allow(&["[::ffff:0:1]:0".parse().unwrap(), right]).unwrap();
            let dialer = Dialer::new(File::from(here));
            drop(connector);
            match asked {
                1 => {
                    drop(dialer.begin(1).unwrap());
                    there.accept().unwrap();
                }
                _ => {
                    let error = dialer.begin(2).unwrap_err().to_string();
                    assert!(error.contains("has ended"), "{error}");
                }
            }
            drop(dialer);
            serving.join().unwrap();
        }
    }
}
