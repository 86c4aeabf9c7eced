//! Names to addresses.

use super::user;
use crate::{
    events,
    fd::Errno,
    net::dns::{self, ResolveError},
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::{
    ffi::c_char,
    net::{Ipv4Addr, SocketAddrV4},
    ptr, str,
};
use hermit_abi::{
    AF_INET, AF_UNSPEC, EAI_AGAIN, EAI_FAIL, EAI_FAMILY, EAI_NONAME, EAI_SERVICE, addrinfo, errno,
    sockaddr_in,
};

/// The addresses of `name`, at least one, or an `EAI_` number.
fn resolve(name: Result<&[u8], Errno>) -> Result<Vec<Ipv4Addr>, i32> {
    dns::resolve(name.map_err(|_| EAI_NONAME)?).map_err(|error| match error {
        ResolveError::NoName => EAI_NONAME,
        ResolveError::Family => EAI_FAMILY,
        ResolveError::TryAgain => EAI_AGAIN,
        ResolveError::Failed => EAI_FAIL,
    })
}

/// One result, with the address it points to.
#[repr(C)]
struct Entry {
    info: addrinfo,
    address: sockaddr_in,
}

/// The list that the caller gets, and gives back to [`sys_freeaddrinfo`].
fn list(addresses: &[Ipv4Addr], port: u16, hints: &addrinfo) -> *mut addrinfo {
    let mut next = ptr::null_mut();
    for &ip in addresses.iter().rev() {
        let entry = Box::into_raw(Box::new(Entry {
            info: addrinfo {
                ai_flags: 0,
                ai_family: AF_INET,
                ai_socktype: hints.ai_socktype,
                ai_protocol: hints.ai_protocol,
                ai_addrlen: size_of::<sockaddr_in>() as u32,
                ai_canonname: ptr::null_mut(),
                ai_addr: ptr::null_mut(),
                ai_next: next,
            },
            address: super::address::to_abi(SocketAddrV4::new(ip, port)),
        }));
        // SAFETY: just made; the address stays where it is, in the same box.
        unsafe { (*entry).info.ai_addr = (&raw mut (*entry).address).cast() };
        next = entry.cast();
    }
    next
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> i32 {
    events::checkpoint();
    let any = addrinfo {
        ai_flags: 0,
        ai_family: AF_UNSPEC,
        ai_socktype: 0,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_canonname: ptr::null_mut(),
        ai_addr: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    // SAFETY: null, or the caller's.
    let hints = unsafe { hints.as_ref() }.unwrap_or(&any);
    if !matches!(hints.ai_family, AF_UNSPEC | AF_INET) {
        return EAI_FAMILY;
    }
    let port = match service.is_null() {
        true => Ok(0),
        // SAFETY: the caller's string. Only port numbers are supported, not names of services.
        false => unsafe { user::string(service) }
            .ok()
            .and_then(|text| str::from_utf8(text).ok()?.parse().ok())
            .ok_or(EAI_SERVICE),
    };
    let addresses = match node.is_null() {
        true => Ok(vec![Ipv4Addr::LOCALHOST]),
        // SAFETY: the caller's string.
        false => resolve(unsafe { user::string(node) }),
    };
    match port.and_then(|port| Ok((port, addresses?))) {
        Ok((port, addresses)) if !result.is_null() => {
            // SAFETY: not null, and the caller's.
            unsafe { result.write(list(&addresses, port, hints)) };
            0
        }
        Ok(_) => EAI_FAIL,
        Err(error) => error,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_freeaddrinfo(mut info: *mut addrinfo) {
    while !info.is_null() {
        // SAFETY: the caller gives back a list of `sys_getaddrinfo`, whose entries are these boxes.
        let entry = unsafe { Box::from_raw(info.cast::<Entry>()) };
        info = entry.info.ai_next;
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getaddrbyname(name: *const c_char, to: *mut u8, len: usize) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    let addresses = resolve(unsafe { user::string(name) });
    // SAFETY: the caller's buffer.
    let to = unsafe { user::bytes_mut(to, len) };
    match (addresses, to) {
        (Ok(addresses), Ok(to)) if to.len() == 4 => {
            to.copy_from_slice(&addresses[0].octets());
            0
        }
        (Ok(_), _) => -errno::EINVAL,
        (Err(_), _) => -errno::ENOENT,
    }
}
