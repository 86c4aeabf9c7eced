//! Reads and writes with several buffers.

use super::{Description, Errno};
use alloc::vec::Vec;
use hermit_abi::errno;

/// Reads into `buffers`, none of them empty, `len` bytes together. Stops where it would have to
/// wait after it has read something.
///
/// # Errors
/// As [`Description::read`], or that of a buffer.
pub fn read<'a>(
    description: &Description,
    len: usize,
    buffers: impl Iterator<Item = Result<&'a mut [u8], Errno>>,
) -> Result<usize, Errno> {
    if description.has_messages() {
        return read_message(description, len, buffers);
    }
    let mut total = 0;
    for to in buffers {
        if total > 0 && !description.ready().readable {
            break;
        }
        let to = to?;
        match description.read(to) {
            Ok(n) => {
                total += n;
                if n < to.len() {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}

/// Reads one message, spread over the buffers.
fn read_message<'a>(
    description: &Description,
    len: usize,
    buffers: impl Iterator<Item = Result<&'a mut [u8], Errno>>,
) -> Result<usize, Errno> {
    let mut whole = Vec::new();
    whole.try_reserve_exact(len).map_err(|_| Errno(errno::ENOMEM))?;
    whole.resize(len, 0);
    let n = description.read(&mut whole)?;
    let mut rest = &whole[..n];
    for to in buffers {
        let to = to?;
        let (now, later) = rest.split_at(rest.len().min(to.len()));
        to[..now.len()].copy_from_slice(now);
        rest = later;
    }
    Ok(n)
}

/// Writes `buffers`, none of them empty. Stops where it would have to wait after it has written
/// something.
///
/// # Errors
/// As [`Description::write`], or that of a buffer.
pub fn write<'a>(
    description: &Description,
    buffers: impl Iterator<Item = Result<&'a [u8], Errno>>,
) -> Result<usize, Errno> {
    if description.has_messages() {
        let mut whole = Vec::new();
        for from in buffers {
            whole.extend_from_slice(from?);
        }
        return description.write(&whole);
    }
    let mut total = 0;
    for from in buffers {
        if total > 0 && !description.ready().writable {
            break;
        }
        let from = from?;
        match description.write(from) {
            Ok(n) => {
                total += n;
                if n < from.len() {
                    break;
                }
            }
            Err(_) if total > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(total)
}
