//! Standard input, output and error: the console.

use super::errno::Errno;
use crate::platform::{self, CONSOLE_READABLE, ConsoleRead};
use hermit_abi::errno;

/// Reads what has been typed; waits until there is something, or the end.
pub fn read(to: &mut [u8], nonblocking: bool) -> Result<usize, Errno> {
    if to.is_empty() {
        return Ok(0);
    }
    loop {
        match platform::console_read(to) {
            ConsoleRead::Bytes(n) => return Ok(n),
            ConsoleRead::End => return Ok(0),
            ConsoleRead::Empty if nonblocking => return Err(Errno(errno::EAGAIN)),
            ConsoleRead::Empty => {
                CONSOLE_READABLE.wait(None);
            }
        }
    }
}

/// Prints.
pub fn write(from: &[u8]) -> usize {
    platform::console_write(from);
    from.len()
}

/// Whether [`read`] would not wait.
pub fn readable() -> bool {
    platform::console_readable()
}
