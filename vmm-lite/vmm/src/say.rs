//! Prints the process's messages, each in one write, so that it appears whole or not at all.
//!
//! The standard library's macros write each part of a message by itself, and an event between two
//! parts (the end of the process, by another thread or by a signal, or a message of another
//! process) cuts the message. They also panic where the reader has closed, which would end a thread
//! that a VM needs. This crate's macros of the same names do neither.

use std::io::Write;

/// Prints to standard error. Errors of a closed one are ignored: there is nowhere to report them.
pub fn to_stderr(message: &str) {
    let _ = std::io::stderr().lock().write_all(message.as_bytes());
}

/// Prints to standard output, at once. Errors of a closed one are ignored too.
pub fn to_stdout(message: &str) {
    let mut out = std::io::stdout().lock();
    // Standard output buffers an incomplete line, and writes whole lines at once if its buffer is
    // empty.
    let _ = out.flush().and_then(|()| out.write_all(message.as_bytes())).and_then(|()| out.flush());
}

/// Prints to standard error, in one write.
#[macro_export]
macro_rules! eprint {
    ($($part:tt)*) => { $crate::say::to_stderr(&std::fmt::format(format_args!($($part)*))) };
}

/// Prints a line to standard error, in one write.
#[macro_export]
macro_rules! eprintln {
    ($($part:tt)*) => { $crate::say::to_stderr(&std::fmt::format(format_args!("{}\n",
        format_args!($($part)*)))) };
}

/// Prints to standard output, in one write.
#[macro_export]
macro_rules! print {
    ($($part:tt)*) => { $crate::say::to_stdout(&std::fmt::format(format_args!($($part)*))) };
}

/// Prints a line to standard output, in one write.
#[macro_export]
macro_rules! println {
    ($($part:tt)*) => { $crate::say::to_stdout(&std::fmt::format(format_args!("{}\n",
        format_args!($($part)*)))) };
}
