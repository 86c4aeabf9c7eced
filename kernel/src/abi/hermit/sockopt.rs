//! Socket options.

use super::{errno::unit, socket::with_socket};
use crate::{
    fd::{Errno, socket::Socket},
    net::{Error, Options},
};
use core::{ffi::c_void, ptr};
use hermit_abi::{
    IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP, IP_MULTICAST_LOOP, IP_MULTICAST_TTL, IP_TOS, IP_TTL,
    IPPROTO_IP, IPPROTO_TCP, SO_BROADCAST, SO_ERROR, SO_KEEPALIVE, SO_LINGER, SO_RCVBUF,
    SO_RCVTIMEO, SO_REUSEADDR, SO_SNDBUF, SO_SNDTIMEO, SOL_SOCKET, TCP_NODELAY, errno, ip_mreq,
    linger, socklen_t, timeval,
};

/// Reads a value of the caller's.
///
/// # Safety
/// The caller has `len` bytes there, which are a `T`.
unsafe fn value<T: Copy>(at: *const c_void, len: socklen_t) -> Result<T, Errno> {
    if at.is_null() {
        return Err(Errno(errno::EFAULT));
    }
    if (len as usize) < size_of::<T>() {
        return Err(Errno(errno::EINVAL));
    }
    // SAFETY: long enough, and the caller's.
    Ok(unsafe { at.cast::<T>().read_unaligned() })
}

fn timeout(value: timeval) -> Result<Option<u64>, Errno> {
    if !(0..1_000_000).contains(&value.tv_usec) {
        return Err(Errno(errno::EDOM));
    }
    let seconds = u64::try_from(value.tv_sec).unwrap_or(0);
    let ns = seconds.saturating_mul(1_000_000_000).saturating_add(value.tv_usec as u64 * 1000);
    Ok((ns > 0).then_some(ns))
}

fn seconds_and_micros(timeout: Option<u64>) -> timeval {
    let us = timeout.unwrap_or(0).div_ceil(1000);
    timeval { tv_sec: (us / 1_000_000) as i64, tv_usec: (us % 1_000_000) as i32 }
}

/// # Safety
/// The caller has `len` bytes at `at`, which are what the option takes.
unsafe fn set(
    socket: &Socket,
    (level, name): (i32, i32),
    at: *const c_void,
    len: socklen_t,
) -> Result<(), Errno> {
    // SAFETY: for options that take a number, as the caller promises.
    let number = || unsafe { value::<i32>(at, len) };
    // SAFETY: for options that take a time, as the caller promises.
    let time = || timeout(unsafe { value(at, len)? });
    let change = |f: &dyn Fn(&mut Options)| socket.set_options(|o| f(o));
    match (level, name) {
        (SOL_SOCKET, SO_REUSEADDR) => {
            let on = number()? != 0;
            change(&|o| o.reuse_address = on);
        }
        (SOL_SOCKET, SO_BROADCAST) => {
            let on = number()? != 0;
            change(&|o| o.broadcast = on);
        }
        (SOL_SOCKET, SO_KEEPALIVE) => {
            let on = number()? != 0;
            change(&|o| o.keep_alive = on);
        }
        // Accepted and ignored: the kernel sizes buffers itself.
        (SOL_SOCKET, SO_RCVBUF | SO_SNDBUF) => {
            number()?;
        }
        (SOL_SOCKET, SO_RCVTIMEO) => {
            let timeout = time()?;
            change(&|o| o.receive_timeout = timeout);
        }
        (SOL_SOCKET, SO_SNDTIMEO) => {
            let timeout = time()?;
            change(&|o| o.send_timeout = timeout);
        }
        (SOL_SOCKET, SO_LINGER) => {
            // SAFETY: this option takes a `linger`, as the caller promises.
            let value = unsafe { value::<linger>(at, len)? };
            let seconds = (value.l_onoff != 0).then_some(value.l_linger.max(0) as u32);
            change(&|o| o.linger = seconds);
        }
        (IPPROTO_TCP, TCP_NODELAY) if !socket.is_datagram() => {
            let on = number()? != 0;
            change(&|o| o.no_delay = on);
        }
        (IPPROTO_IP, IP_TTL) => {
            let ttl = u8::try_from(number()?).ok().filter(|&ttl| ttl > 0);
            let ttl = ttl.ok_or(Errno(errno::EINVAL))?;
            change(&|o| o.ttl = ttl);
        }
        // Accepted and ignored: nothing on the way uses it.
        (IPPROTO_IP, IP_TOS) => {
            number()?;
        }
        (IPPROTO_IP, IP_MULTICAST_TTL) => {
            let ttl = u8::try_from(number()?).map_err(|_| Errno(errno::EINVAL))?;
            change(&|o| o.multicast_ttl = ttl);
        }
        (IPPROTO_IP, IP_MULTICAST_LOOP) => {
            let on = number()? != 0;
            change(&|o| o.multicast_loop = on);
        }
        (IPPROTO_IP, IP_ADD_MEMBERSHIP | IP_DROP_MEMBERSHIP) => {
            // SAFETY: these options take an `ip_mreq`, as the caller promises.
            let request = unsafe { value::<ip_mreq>(at, len)? };
            let group = request.imr_multiaddr.s_addr.to_ne_bytes().into();
            let join = name == IP_ADD_MEMBERSHIP;
            socket.set_membership(group, join)?;
        }
        _ => return Err(Errno(errno::ENOPROTOOPT)),
    }
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_setsockopt(
    fd: i32,
    level: i32,
    name: i32,
    at: *const c_void,
    len: socklen_t,
) -> i32 {
    unit(with_socket(fd, |socket, _| {
        // SAFETY: the caller's value.
        unsafe { set(socket, (level, name), at, len) }
    }))
}

/// Writes a value where the caller wants it, cut off to the room that it has.
///
/// # Safety
/// The caller has as many bytes at `at` as `len` says, which is its own.
unsafe fn put<T>(value: T, at: *mut c_void, len: *mut socklen_t) -> Result<(), Errno> {
    if at.is_null() || len.is_null() {
        return Err(Errno(errno::EFAULT));
    }
    // SAFETY: not null, and the caller's.
    let n = (unsafe { len.read_unaligned() } as usize).min(size_of::<T>());
    // SAFETY: as much as the caller has, and no more than there is.
    unsafe {
        ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), at.cast(), n);
        len.write_unaligned(n as socklen_t);
    }
    Ok(())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getsockopt(
    fd: i32,
    level: i32,
    name: i32,
    at: *mut c_void,
    len: *mut socklen_t,
) -> i32 {
    unit(with_socket(fd, |socket, _| {
        let options = socket.options();
        let number = match (level, name) {
            (SOL_SOCKET, SO_ERROR) => socket.take_error().map_or(0, Error::errno),
            (SOL_SOCKET, SO_REUSEADDR) => options.reuse_address.into(),
            (SOL_SOCKET, SO_BROADCAST) => options.broadcast.into(),
            (SOL_SOCKET, SO_KEEPALIVE) => options.keep_alive.into(),
            (SOL_SOCKET, SO_RCVBUF | SO_SNDBUF) => socket.buffer_size() as i32,
            (SOL_SOCKET, SO_RCVTIMEO) => {
                // SAFETY: the caller's room.
                return unsafe { put(seconds_and_micros(options.receive_timeout), at, len) };
            }
            (SOL_SOCKET, SO_SNDTIMEO) => {
                // SAFETY: the caller's room.
                return unsafe { put(seconds_and_micros(options.send_timeout), at, len) };
            }
            (SOL_SOCKET, SO_LINGER) => {
                let value = linger {
                    l_onoff: options.linger.is_some().into(),
                    l_linger: options.linger.unwrap_or(0) as i32,
                };
                // SAFETY: the caller's room.
                return unsafe { put(value, at, len) };
            }
            (IPPROTO_TCP, TCP_NODELAY) if !socket.is_datagram() => options.no_delay.into(),
            (IPPROTO_IP, IP_TTL) => options.ttl.into(),
            (IPPROTO_IP, IP_TOS) => 0,
            (IPPROTO_IP, IP_MULTICAST_TTL) => options.multicast_ttl.into(),
            (IPPROTO_IP, IP_MULTICAST_LOOP) => options.multicast_loop.into(),
            _ => return Err(Errno(errno::ENOPROTOOPT)),
        };
        // SAFETY: the caller's room.
        unsafe { put::<i32>(number, at, len) }
    }))
}
