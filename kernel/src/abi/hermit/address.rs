//! Socket addresses as the ABI has them.

use crate::fd::Errno;
use core::{mem, net::SocketAddrV4, ptr};
use hermit_abi::{AF_INET, AF_UNSPEC, errno, in_addr, sockaddr, sockaddr_in, socklen_t};

const LEN: usize = size_of::<sockaddr_in>();

/// `address` in the ABI's form.
pub fn to_abi(address: SocketAddrV4) -> sockaddr_in {
    sockaddr_in {
        sin_len: LEN as u8,
        sin_family: AF_INET as u8,
        sin_port: address.port().to_be(),
        // In the order of the bytes, which is the network's.
        sin_addr: in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    }
}

/// The caller's address; `None` if it is of no family, which disconnects a datagram socket.
///
/// # Errors
/// `EAFNOSUPPORT` for other families than IPv4, `EINVAL`, `EFAULT`.
///
/// # Safety
/// The caller has `len` bytes there.
pub unsafe fn get(at: *const sockaddr, len: socklen_t) -> Result<Option<SocketAddrV4>, Errno> {
    if at.is_null() {
        return Err(Errno(errno::EFAULT));
    }
    if (len as usize) < mem::offset_of!(sockaddr, sa_data) {
        return Err(Errno(errno::EINVAL));
    }
    // SAFETY: long enough for the family, as just checked.
    let family = i32::from(unsafe { (&raw const (*at).sa_family).read() });
    match family {
        AF_UNSPEC => return Ok(None),
        AF_INET if len as usize >= LEN => {}
        AF_INET => return Err(Errno(errno::EINVAL)),
        _ => return Err(Errno(errno::EAFNOSUPPORT)),
    }
    // SAFETY: long enough, as just checked.
    let address = unsafe { at.cast::<sockaddr_in>().read_unaligned() };
    let ip = address.sin_addr.s_addr.to_ne_bytes().into();
    Ok(Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port))))
}

/// Writes an address where the caller wants it, if it does, cut off to the room that it has; and
/// how long the address is in full.
///
/// # Errors
/// `EFAULT` when there is no pointer for the length.
///
/// # Safety
/// `at` is null, or the caller has as many bytes there as `len` says, which is null or the
/// caller's.
pub unsafe fn put(
    at: *mut sockaddr,
    len: *mut socklen_t,
    address: SocketAddrV4,
) -> Result<(), Errno> {
    if at.is_null() {
        return Ok(());
    }
    if len.is_null() {
        return Err(Errno(errno::EFAULT));
    }
    let address = to_abi(address);
    // SAFETY: not null, and the caller's.
    let room = unsafe { len.read_unaligned() } as usize;
    // SAFETY: as much as the caller has, and no more than there is.
    unsafe {
        ptr::copy_nonoverlapping((&raw const address).cast(), at.cast::<u8>(), room.min(LEN));
        len.write_unaligned(LEN as socklen_t);
    }
    Ok(())
}
