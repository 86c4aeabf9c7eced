//! Packets through a TAP device, each with its virtio-net header.

use super::Tap;
use crate::devices::{net::backend::Backend, virtio::Parts};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, RawFd},
};

impl Tap {
    /// Reads one frame with its header; `None` when none is waiting.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(&self, to: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.file).read(to) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                read => return read.map(Some),
            }
        }
    }

    /// Writes one frame with its header. `false` when the device accepts none for now.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn write(&self, frame: &[u8]) -> io::Result<bool> {
        loop {
            match (&self.file).write(frame) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                // A packet is written whole.
                written => return written.map(|_| true),
            }
        }
    }

    /// Whether a frame waits to be read.
    #[must_use]
    pub fn has_packet(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok()
            && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN))
    }

    /// Reads one frame with its header into a guest's buffer; `None` when none is waiting.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read_to(&self, buffer: Parts<'_>) -> io::Result<Option<usize>> {
        buffer.read_from(self.file.as_fd())
    }

    /// Discards the frames that wait to be read.
    pub fn drain(&self) {
        // A frame that does not fit is truncated, which discards it all the same.
        let mut frame = [0; 64];
        while matches!(self.read(&mut frame), Ok(Some(_))) {}
    }
}

impl Backend for Tap {
    fn name(&self) -> &str {
        self.name()
    }

    fn fd(&self) -> RawFd {
        self.fd()
    }

    fn set_offload(&mut self, offload: u32) -> io::Result<()> {
        Tap::set_offload(self, offload).map_err(io::Error::other)
    }

    fn send(&mut self, packet: Parts<'_>) -> io::Result<bool> {
        Ok(packet.write_to(self.file.as_fd())?.is_some())
    }

    fn has_packet(&self) -> bool {
        Tap::has_packet(self)
    }

    fn receive(&mut self, buffer: Parts<'_>) -> io::Result<Option<usize>> {
        self.read_to(buffer)
    }
}
