//! The client that starts an operation of a VM and follows its progress.

use std::{io, os::fd::RawFd};

/// The client that started an operation. Without a client, see [`Unobserved`].
pub trait Observer<Progress> {
    /// Receives the operation's progress.
    ///
    /// # Errors
    /// When the client has disconnected, which cancels the operation.
    fn progress(&mut self, progress: Progress) -> io::Result<()>;

    /// Hangs up when the client disconnects, which cancels the operation; negative if it never
    /// does.
    fn fd(&self) -> RawFd;
}

/// No client: the operation continues until it is done or cancelled.
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
