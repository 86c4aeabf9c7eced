//! Sockets: calls that wait, on a stack that does not.

use super::{
    address,
    errno::{Errno, int, size, unit},
    fd::{self, Description, Object},
    user,
};
use crate::events;
use crate::{
    net::AwaitsNetwork,
    net::{
        self, Error, SocketId,
        calls::{Kind, Shutdown},
    },
    sched::{
        WaitQueue, Wake,
        readiness::{Ready, Waits},
    },
    time,
};
use alloc::rc::Rc;
use core::{ffi::c_void, net::SocketAddrV4};
use hermit_abi::{
    AF_INET, IPPROTO_TCP, IPPROTO_UDP, MSG_PEEK, SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_CLOEXEC,
    SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, errno, sockaddr, socklen_t,
};

/// How long a call looks after packets before it says that there is no memory, ns.
const SETTLE_TIME: u64 = 20_000_000;

/// A socket that has a descriptor.
#[derive(Debug)]
pub struct Socket {
    /// Which.
    pub id: SocketId,
    /// Who waits for it.
    pub waits: Rc<Waits>,
    kind: Kind,
}

impl Drop for Socket {
    fn drop(&mut self) {
        net::close(self.id);
    }
}

/// Tries until it need not wait, or the time is over.
fn wait_for<R>(
    queue: &WaitQueue,
    nonblocking: bool,
    timeout: Option<u64>,
    mut attempt: impl FnMut() -> Result<R, Error>,
) -> Result<R, Errno> {
    let mut deadline = None;
    loop {
        match attempt() {
            Err(Error::WouldBlock) if !nonblocking => {}
            result => return Ok(result?),
        }
        if let (None, Some(timeout)) = (deadline, timeout) {
            deadline = Some(time::now_ns().saturating_add(timeout));
        }
        let awaits = AwaitsNetwork::begin();
        let wake = queue.wait(deadline);
        drop(awaits);
        if wake == Wake::TimedOut {
            return Ok(attempt()?);
        }
    }
}

impl Socket {
    fn new(kind: Kind) -> Self {
        let (id, waits) = net::socket(kind);
        Self { id, waits, kind }
    }

    /// Messages keep their borders in it.
    pub fn is_datagram(&self) -> bool {
        self.kind == Kind::Datagram
    }

    /// What it is ready for.
    pub fn ready(&self) -> Ready {
        net::with(|network| network.ready(self.id))
    }

    fn timeouts(&self) -> (Option<u64>, Option<u64>) {
        let options = net::with(|network| network.options(self.id));
        (options.receive_timeout, options.send_timeout)
    }

    /// Receives; 0 is the end of a stream.
    pub fn receive(&self, to: &mut [u8], peek: bool, nonblocking: bool) -> Result<usize, Errno> {
        let attempt = net::with(|network| network.receive(self.id, to, peek));
        // Mostly there is something: options matter only to who has to wait.
        if attempt != Err(Error::WouldBlock) || nonblocking {
            return Ok(attempt?);
        }
        let (timeout, _) = self.timeouts();
        wait_for(&self.waits.readers, nonblocking, timeout, || {
            net::with(|network| network.receive(self.id, to, peek))
        })
    }

    fn receive_from(
        &self,
        to: &mut [u8],
        peek: bool,
        nonblocking: bool,
    ) -> Result<(usize, Option<SocketAddrV4>), Errno> {
        let (timeout, _) = self.timeouts();
        wait_for(&self.waits.readers, nonblocking, timeout, || {
            net::with(|network| network.receive_from(self.id, to, peek))
        })
    }

    /// Sends: a whole datagram, or of a stream all if it may wait, else what there is room for.
    pub fn send(
        &self,
        from: &[u8],
        to: Option<SocketAddrV4>,
        nonblocking: bool,
    ) -> Result<usize, Errno> {
        let send = |from: &[u8]| match to {
            None => net::with(|network| network.send(self.id, from)),
            Some(_) => net::with(|network| network.send_to(self.id, from, to)),
        };
        let mut sent = match send(from) {
            Err(Error::WouldBlock) if !nonblocking => 0,
            result => result?,
        };
        if sent == from.len() || nonblocking {
            return Ok(sent);
        }
        let (_, timeout) = self.timeouts();
        while sent < from.len() || from.is_empty() {
            let rest = &from[sent..];
            match wait_for(&self.waits.writers, false, timeout, || send(rest)) {
                Ok(n) => sent += n,
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
            if from.is_empty() {
                break;
            }
        }
        Ok(sent)
    }

    fn accept(&self, nonblocking: bool) -> Result<(Self, SocketAddrV4), Errno> {
        let (timeout, _) = self.timeouts();
        let (id, peer) = wait_for(&self.waits.readers, nonblocking, timeout, || {
            net::with(|network| network.accept(self.id))
        })?;
        // One is woken for each connection; should two have come at once, the next is this one's to wake.
        if self.ready().readable {
            self.waits.readers.wake_one();
        }
        Ok((Self { id, waits: net::waits(id), kind: Kind::Stream }, peer))
    }

    fn connect(&self, to: Option<SocketAddrV4>, nonblocking: bool) -> Result<(), Errno> {
        let Some(to) = to else {
            return Ok(net::with(|network| network.connect_datagram(self.id, None))?);
        };
        let mut attempt = net::with(|network| network.connect(self.id, to));
        if attempt == Err(Error::NoMemory) {
            // Connections that were closed a moment ago give theirs back when their last packets have been.
            let end = time::now_ns() + SETTLE_TIME;
            while net::poll(time::now_ns()).is_some_and(|next| next <= time::now_ns().min(end)) {}
            attempt = net::with(|network| network.connect(self.id, to));
        }
        match attempt {
            Err(Error::InProgress) if !nonblocking => {}
            result => return Ok(result?),
        }
        let (_, timeout) = self.timeouts();
        wait_for(&self.waits.writers, false, timeout, || {
            match net::with(|network| network.connect_result(self.id)) {
                Err(Error::InProgress) => Err(Error::WouldBlock),
                result => result,
            }
        })
    }
}

/// Calls `f` with the socket that `fd` stands for, and whether its calls do not wait.
pub fn with_socket<R>(
    fd: i32,
    f: impl FnOnce(&Socket, &Description) -> Result<R, Errno>,
) -> Result<R, Errno> {
    events::checkpoint();
    let description = fd::get(fd)?;
    match &description.object {
        Object::Socket(socket) => f(socket, &description),
        _ => Err(Errno(errno::ENOTSOCK)),
    }
}

#[unsafe(no_mangle)]
extern "C" fn sys_socket(family: i32, kind: i32, protocol: i32) -> i32 {
    events::checkpoint();
    if family != AF_INET {
        return int(Err(Errno(errno::EAFNOSUPPORT)));
    }
    let (wanted, usual) = match kind & !(SOCK_NONBLOCK | SOCK_CLOEXEC) {
        SOCK_STREAM => (Kind::Stream, IPPROTO_TCP),
        SOCK_DGRAM => (Kind::Datagram, IPPROTO_UDP),
        _ => return int(Err(Errno(errno::ESOCKTNOSUPPORT))),
    };
    if protocol != 0 && protocol != usual {
        return int(Err(Errno(errno::EPROTONOSUPPORT)));
    }
    int(fd::open(Object::Socket(Socket::new(wanted)), kind & SOCK_NONBLOCK != 0))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_bind(fd: i32, at: *const sockaddr, len: socklen_t) -> i32 {
    unit(with_socket(fd, |socket, _| {
        // SAFETY: the caller's address.
        let to = unsafe { address::get(at, len)? }.ok_or(Errno(errno::EAFNOSUPPORT))?;
        Ok(net::with(|network| network.bind(socket.id, to))?)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_listen(fd: i32, backlog: i32) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let backlog = usize::try_from(backlog).unwrap_or(0);
        Ok(net::with(|network| network.listen(socket.id, backlog))?)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_accept(fd: i32, at: *mut sockaddr, len: *mut socklen_t) -> i32 {
    int(with_socket(fd, |socket, description| {
        let (accepted, peer) = socket.accept(description.nonblocking.get())?;
        // SAFETY: the caller's room.
        unsafe { address::put(at, len, peer)? };
        fd::open(Object::Socket(accepted), false)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_connect(fd: i32, at: *const sockaddr, len: socklen_t) -> i32 {
    unit(with_socket(fd, |socket, description| {
        // SAFETY: the caller's address.
        let to = unsafe { address::get(at, len)? };
        socket.connect(to, description.nonblocking.get())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_recv(fd: i32, at: *mut u8, len: usize, flags: i32) -> isize {
    size(with_socket(fd, |socket, description| {
        // SAFETY: the caller's buffer.
        let to = unsafe { user::bytes_mut(at, len)? };
        socket.receive(to, flags & MSG_PEEK != 0, description.nonblocking.get())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_recvfrom(
    fd: i32,
    at: *mut u8,
    len: usize,
    flags: i32,
    from: *mut sockaddr,
    from_len: *mut socklen_t,
) -> isize {
    size(with_socket(fd, |socket, description| {
        // SAFETY: the caller's buffer.
        let to = unsafe { user::bytes_mut(at, len)? };
        let nonblocking = description.nonblocking.get();
        let (n, peer) = socket.receive_from(to, flags & MSG_PEEK != 0, nonblocking)?;
        let peer = match peer {
            Some(peer) => peer,
            None => net::with(|network| network.peer_address(socket.id))?,
        };
        // SAFETY: the caller's room.
        unsafe { address::put(from, from_len, peer)? };
        Ok(n)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_send(fd: i32, at: *const c_void, len: usize, _flags: i32) -> isize {
    size(with_socket(fd, |socket, description| {
        // SAFETY: the caller's buffer.
        let from = unsafe { user::bytes(at.cast(), len)? };
        socket.send(from, None, description.nonblocking.get())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_sendto(
    fd: i32,
    at: *const c_void,
    len: usize,
    _flags: i32,
    to: *const sockaddr,
    to_len: socklen_t,
) -> isize {
    size(with_socket(fd, |socket, description| {
        // SAFETY: the caller's buffer.
        let from = unsafe { user::bytes(at.cast(), len)? };
        let to = if to.is_null() {
            None
        } else {
            // SAFETY: the caller's address.
            Some(unsafe { address::get(to, to_len)? }.ok_or(Errno(errno::EAFNOSUPPORT))?)
        };
        socket.send(from, to, description.nonblocking.get())
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_shutdown(fd: i32, how: i32) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let how = match how {
            SHUT_RD => Shutdown { read: true, write: false },
            SHUT_WR => Shutdown { read: false, write: true },
            SHUT_RDWR => Shutdown { read: true, write: true },
            _ => return Err(Errno(errno::EINVAL)),
        };
        Ok(net::with(|network| network.shut_down(socket.id, how))?)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_shutdown_socket(fd: i32, how: i32) -> i32 {
    sys_shutdown(fd, how)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getsockname(fd: i32, at: *mut sockaddr, len: *mut socklen_t) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let address = net::with(|network| network.local_address(socket.id));
        // SAFETY: the caller's room.
        unsafe { address::put(at, len, address) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getpeername(fd: i32, at: *mut sockaddr, len: *mut socklen_t) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let address = net::with(|network| network.peer_address(socket.id))?;
        // SAFETY: the caller's room.
        unsafe { address::put(at, len, address) }
    }))
}

/// There is nothing to be set up.
#[unsafe(no_mangle)]
extern "C" fn sys_network_init() -> i32 {
    0
}
