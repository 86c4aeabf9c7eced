//! Packets that reach a guest's old place.

use crate::devices::tap::{Tap, VNET_HEADER};
use std::{
    io,
    time::{Duration, Instant},
};

/// Largest frame a TAP hands out, with its header.
const FRAME_MAX: usize = VNET_HEADER + 14 + 65_535;

/// Reads from the TAP of a guest that has moved away.
#[derive(Debug)]
pub struct LatePackets {
    tap: Option<Tap>,
    buffer: Vec<u8>,
}

impl LatePackets {
    pub(super) fn new(tap: Option<Tap>) -> Self {
        Self { buffer: if tap.is_some() { vec![0; FRAME_MAX] } else { Vec::new() }, tap }
    }

    /// The next packet with its virtio-net header, waiting for it until `deadline`.
    ///
    /// # Errors
    /// What the TAP says.
    pub fn next(&mut self, deadline: Instant) -> io::Result<Option<&[u8]>> {
        let Some(tap) = &self.tap else { return Ok(None) };
        loop {
            if let Some(n) = tap.read(&mut self.buffer)? {
                // The header is complete as the guest's driver expects it.
                self.buffer[10..12].copy_from_slice(&1_u16.to_le_bytes());
                return Ok(Some(&self.buffer[..n.min(FRAME_MAX)]));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut poll = libc::pollfd { fd: tap.fd(), events: libc::POLLIN, revents: 0 };
            let left = left.max(Duration::from_millis(1)).as_millis().min(i32::MAX as u128) as i32;
            // SAFETY: one valid entry; whatever the outcome, the TAP is looked at again.
            unsafe { libc::poll(&raw mut poll, 1, left) };
        }
    }
}
