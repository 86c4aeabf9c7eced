//! Packets that reach the source after the guest has left.

use crate::devices::net::{backend::VNET_HEADER, tap::Tap};
use std::{io, os::fd::RawFd};

/// The largest frame that a TAP delivers, with its header.
const FRAME_MAX: usize = VNET_HEADER + 14 + 65_535;

/// Reads from the TAP of a guest that has moved away.
#[derive(Debug)]
pub struct ForwardedPackets {
    tap: Option<Tap>,
    buffer: Vec<u8>,
}

impl ForwardedPackets {
    pub(super) fn new(tap: Option<Tap>) -> Self {
        Self { buffer: if tap.is_some() { vec![0; FRAME_MAX] } else { Vec::new() }, tap }
    }

    /// Readable when there are packets; negative where there is no network.
    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.tap.as_ref().map_or(-1, Tap::fd)
    }

    /// The next packet with its virtio-net header, if one waits.
    ///
    /// # Errors
    /// The TAP's error.
    pub fn read(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(tap) = &self.tap else { return Ok(None) };
        let Some(n) = tap.read(&mut self.buffer)? else { return Ok(None) };
        // The header is already in the form that the guest's driver expects.
        self.buffer[10..12].copy_from_slice(&1_u16.to_le_bytes());
        Ok(Some(&self.buffer[..n.min(FRAME_MAX)]))
    }
}
