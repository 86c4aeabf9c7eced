//! The host's random numbers.

use std::io;

/// `N` random bytes, at most 256: up to that size the call never returns fewer.
///
/// # Errors
/// What the host says.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // SAFETY: the buffer has the length that the call is given.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if n == N as isize { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}
