//! What passes between a guest and its devices: noted while the guest is recorded, and repeated
//! when it is replayed.

use super::virtio::Parts;
use migrate::input_log::{Device, Packet};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a device took and gave since it was last asked.
#[derive(Debug, Default)]
pub struct Recording {
    on: bool,
    since: Device,
    /// Digest of what was taken since.
    digest: u64,
    /// Room for a packet.
    packet: Vec<u8>,
}

impl Recording {
    /// Begins anew, or ends.
    pub fn set(&mut self, on: bool) {
        *self = Self { on, ..Self::default() };
    }

    /// What happened since the last call.
    pub fn take(&mut self) -> Device {
        let digest = self.take_digest();
        Device { digest, ..std::mem::take(&mut self.since) }
    }

    /// A buffer that the guest had queued is taken.
    pub fn taken(&mut self, packet: Parts<'_>) {
        if self.on {
            self.since.taken += 1;
            self.digest(packet);
        }
    }

    /// Adds a packet to the digest. Returns it.
    pub fn digest(&mut self, packet: Parts<'_>) -> &[u8] {
        self.packet.resize(packet.size(), 0);
        let bytes = packet.read(&mut self.packet);
        self.digest = xxh3_64_with_seed(bytes, self.digest);
        bytes
    }

    /// The digest of what was taken since the last call.
    #[must_use]
    pub fn take_digest(&mut self) -> u64 {
        std::mem::take(&mut self.digest)
    }

    /// A packet of `len` bytes was written to a buffer, as far as it fits.
    pub fn received(&mut self, len: usize, buffer: Parts<'_>) {
        if self.on {
            let mut bytes = vec![0; len.min(buffer.size())];
            buffer.read(&mut bytes);
            self.since.packets.push(Packet { len: len as u32, bytes });
        }
    }
}

/// Sees the packets of a guest that is replayed.
pub trait Traffic: std::fmt::Debug + Send {
    /// What follows depends on the record at `position`, and happened at this time of the guest's
    /// wall clock, ns since 1970, if that is known.
    fn at(&mut self, position: u64, wall_ns: Option<u64>);

    /// Whether what the guest sends also goes to the back end of its device.
    fn sends(&self) -> bool {
        false
    }

    /// The guest has sent this, with its virtio-net header.
    fn sent(&mut self, packet: &[u8]);

    /// It has received this.
    fn received(&mut self, packet: &[u8]);
}

/// How a replayed guest differs from the recorded one at an input point.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Unlike {
    /// It has queued less for sending.
    #[error("it has sent fewer packets to its {0} device")]
    FewerSent(&'static str),
    /// It has sent something else.
    #[error("it has sent other packets to its {0} device")]
    OtherSent(&'static str),
    /// It has no buffer for what the recorded one received.
    #[error("it has no room for a packet that its {0} device received")]
    NoBuffer(&'static str),
    /// It has not set up the device.
    #[error("it has not started its {0} device")]
    NotStarted(&'static str),
    /// It has fewer devices.
    #[error("it has no device number {0}")]
    NoDevice(usize),
    /// It has printed less.
    #[error("it has printed less to its console")]
    PrintedLess,
    /// It has no room for console input.
    #[error("it has no room for console input")]
    NoRoomForInput,
    /// It broke a rule of the interface.
    #[error(transparent)]
    Broke(#[from] super::Violation),
}
