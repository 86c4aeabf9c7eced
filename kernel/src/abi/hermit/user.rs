//! Memory that a caller names by address and length.
//!
//! Program and kernel share one address space, so a wrong address faults as it would in the
//! program. What is checked is that a slice may be made of it at all.

use crate::fd::Errno;
use core::{ffi::CStr, slice};
use hermit_abi::{errno, iovec};

/// The caller's bytes, to be read.
///
/// # Errors
/// `EFAULT` for a null pointer to something, `EINVAL` for an absurd length.
///
/// # Safety
/// They are the caller's bytes until the call returns.
pub unsafe fn bytes<'a>(at: *const u8, len: usize) -> Result<&'a [u8], Errno> {
    if len == 0 {
        return Ok(&[]);
    }
    check(at.addr(), len)?;
    // SAFETY: neither null nor too long, and the caller's.
    Ok(unsafe { slice::from_raw_parts(at, len) })
}

/// The caller's bytes, to be written.
///
/// # Errors
/// As [`bytes`].
///
/// # Safety
/// As [`bytes`], and nothing else uses them meanwhile.
pub unsafe fn bytes_mut<'a>(at: *mut u8, len: usize) -> Result<&'a mut [u8], Errno> {
    if len == 0 {
        return Ok(&mut []);
    }
    check(at.addr(), len)?;
    // SAFETY: neither null nor too long, and the caller's.
    Ok(unsafe { slice::from_raw_parts_mut(at, len) })
}

/// The caller's list of buffers.
///
/// # Errors
/// As [`bytes`].
///
/// # Safety
/// As [`bytes`].
pub unsafe fn vectors<'a>(at: *const iovec, count: usize) -> Result<&'a [iovec], Errno> {
    if count == 0 {
        return Ok(&[]);
    }
    if count > hermit_abi::IOV_MAX || !at.is_aligned() {
        return Err(Errno(errno::EINVAL));
    }
    check(at.addr(), count * size_of::<iovec>())?;
    // SAFETY: neither null nor too long, and the caller's.
    Ok(unsafe { slice::from_raw_parts(at, count) })
}

/// The caller's string, without its NUL.
///
/// # Errors
/// `EFAULT` for a null pointer.
///
/// # Safety
/// It ends in a NUL.
pub unsafe fn string<'a>(at: *const core::ffi::c_char) -> Result<&'a [u8], Errno> {
    if at.is_null() {
        return Err(Errno(errno::EFAULT));
    }
    // SAFETY: not null, and the caller promises that it ends.
    Ok(unsafe { CStr::from_ptr(at) }.to_bytes())
}

fn check(at: usize, len: usize) -> Result<(), Errno> {
    if at == 0 {
        return Err(Errno(errno::EFAULT));
    }
    if isize::try_from(len).is_err() || at.checked_add(len).is_none() {
        return Err(Errno(errno::EINVAL));
    }
    Ok(())
}
