//! Who started an operation of a VM, and is told how it goes.

use std::{io, os::fd::RawFd};

/// The one who started an operation. There is none where nobody waits for it: see [`Unobserved`].
pub trait Observer<Progress> {
    /// Takes note of how it goes.
    ///
    /// # Errors
    /// When nobody is there any more to be told, which calls the operation off.
    fn progress(&mut self, progress: Progress) -> io::Result<()>;

    /// Hangs up when the observer goes away, which calls the operation off; negative: it never
    /// does.
    fn fd(&self) -> RawFd;
}

/// Nobody: the operation goes on until it is done or cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unobserved;

impl<Progress> Observer<Progress> for Unobserved {
    fn progress(&mut self, _: Progress) -> io::Result<()> {
        Ok(())
    }

    fn fd(&self) -> RawFd {
        -1
    }
}
