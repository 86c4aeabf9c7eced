//! Packets through a TAP device, each with its virtio-net header.

use super::Tap;
use crate::devices::{net::backend::Backend, virtio::Parts};
use std::{io, os::fd::RawFd};

impl Tap {
    /// Reads one frame with its header; `None` when none is waiting.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read(&self, to: &mut [u8]) -> io::Result<Option<usize>> {
        let iov = [libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() }];
        // SAFETY: the buffer is ours and has the vector's length.
        unsafe { self.read_into(&iov) }
    }

    /// Writes one frame with its header. `false` when the device accepts none for now.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn write(&self, frame: &[u8]) -> io::Result<bool> {
        let iov =
            [libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() }];
        // SAFETY: the buffer has the vector's length.
        unsafe { self.write_from(&iov) }
    }

    /// Discards the frames that wait to be read.
    pub fn drain(&self) {
        // A frame that does not fit is truncated, which discards it all the same.
        let mut frame = [0; 64];
        while matches!(self.read(&mut frame), Ok(Some(_))) {}
    }

    /// Reads one frame into the buffers of `iov`.
    ///
    /// # Errors
    /// The kernel's error.
    ///
    /// # Safety
    /// The buffers are valid for writing.
    unsafe fn read_into(&self, iov: &[libc::iovec]) -> io::Result<Option<usize>> {
        loop {
            // SAFETY: the caller guarantees the buffers; the result is checked.
            let n = unsafe { libc::readv(self.fd(), iov.as_ptr(), iov.len() as libc::c_int) };
            if n >= 0 {
                return Ok(Some(n as usize));
            }
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            }
        }
    }

    /// Writes the buffers of `iov` as one frame.
    ///
    /// # Errors
    /// The kernel's error.
    ///
    /// # Safety
    /// The buffers are valid for reading.
    unsafe fn write_from(&self, iov: &[libc::iovec]) -> io::Result<bool> {
        loop {
            // SAFETY: the caller guarantees the buffers; the result is checked.
            let n = unsafe { libc::writev(self.fd(), iov.as_ptr(), iov.len() as libc::c_int) };
            if n >= 0 {
                return Ok(true);
            }
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            }
        }
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
        // SAFETY: the parts lie in guest memory, which stays mapped while they are borrowed.
        unsafe { self.write_from(packet.iovecs()) }
    }

    fn has_packet(&self) -> bool {
        let mut poll = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry; a call that fails leaves it without events.
        unsafe { libc::poll(&raw mut poll, 1, 0) > 0 && poll.revents & libc::POLLIN != 0 }
    }

    fn receive(&mut self, buffer: Parts<'_>) -> io::Result<Option<usize>> {
        // SAFETY: the parts lie in guest memory, which stays mapped while they are borrowed.
        let received = unsafe { self.read_into(buffer.iovecs()) }?;
        if let Some(len) = received {
            buffer.mark(len.min(buffer.size()));
        }
        Ok(received)
    }
}
