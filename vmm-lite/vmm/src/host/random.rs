//! Random numbers of the host's.

use std::io;

/// So many random bytes, at most 256: those come whole.
///
/// # Errors
/// What the host says.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256) };
    let mut bytes = [0; N];
    // SAFETY: the buffer has as many bytes as are asked for.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if n == N as isize { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}
