//! Sockets.

use super::{
    address,
    errno::{int, size, unit},
    user,
};
use crate::{
    events,
    fd::{self, Description, Errno, Object, socket::Socket},
    net::calls::{Kind, Shutdown},
};
use core::ffi::c_void;
use hermit_abi::{
    AF_INET, IPPROTO_TCP, IPPROTO_UDP, MSG_PEEK, SHUT_RD, SHUT_RDWR, SHUT_WR, SOCK_CLOEXEC,
    SOCK_DGRAM, SOCK_NONBLOCK, SOCK_STREAM, errno, sockaddr, socklen_t,
};

/// Calls `f` with the socket that `fd` stands for, and whether its calls do not wait.
pub(super) fn with_socket<R>(
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
        socket.bind(to)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_listen(fd: i32, backlog: i32) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let backlog = usize::try_from(backlog).unwrap_or(0);
        socket.listen(backlog)
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
        socket.shut_down(how)
    }))
}

#[unsafe(no_mangle)]
extern "C" fn sys_shutdown_socket(fd: i32, how: i32) -> i32 {
    sys_shutdown(fd, how)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getsockname(fd: i32, at: *mut sockaddr, len: *mut socklen_t) -> i32 {
    unit(with_socket(fd, |socket, _| {
        // SAFETY: the caller's room.
        unsafe { address::put(at, len, socket.local_address()) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getpeername(fd: i32, at: *mut sockaddr, len: *mut socklen_t) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let address = socket.peer_address()?;
        // SAFETY: the caller's room.
        unsafe { address::put(at, len, address) }
    }))
}

/// There is nothing to be set up.
#[unsafe(no_mangle)]
extern "C" fn sys_network_init() -> i32 {
    0
}
