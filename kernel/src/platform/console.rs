//! The console for the kernel's own messages.

use core::fmt::{self, Write};

use crate::platform;

/// The console, for `write!`. What cannot be printed is lost: there is nowhere else.
#[derive(Clone, Copy, Debug)]
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        platform::console_write(text.as_bytes());
        Ok(())
    }
}

/// Prints to the console, as `std`'s `print!` does.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::platform::console::Console, $($arg)*);
    }};
}
