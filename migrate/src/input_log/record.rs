//! The records of an input log.

use serde::{Deserialize, Serialize};

/// One record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Record {
    /// The guest has left `KVM_RUN` by itself.
    Exit(Exit),
    /// It was given something, while it stood at the exit before.
    Inputs(Inputs),
}

/// An exit of the guest.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// Why it left.
    pub reason: Reason,
    /// The samples that it took since the exit before, in their order.
    #[serde(with = "super::codec::deltas")]
    pub samples: Vec<u64>,
    /// What it had become by then, now and then.
    pub check: Option<Check>,
}

/// Why a guest left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reason {
    /// It rang the doorbell with these bits.
    Doorbell(u32),
    /// It read a register of a device.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// Bytes, at most 8.
        len: u8,
    },
    /// It wrote one.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// The bytes, of which the first `len` count.
        data: [u8; 8],
        /// Bytes, at most 8.
        len: u8,
    },
    /// It did something for which it is ended.
    Broke,
}

/// Digests of a guest's state at an exit, by which a divergence is found that shows in nothing
/// else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Check {
    /// Of the general purpose, segment and control registers, and of the FPU's.
    pub registers: u64,
    /// Number of the first page of the part of memory that was looked at.
    pub first_page: u64,
    /// How many pages that part has.
    pub pages: u64,
    /// Of these pages, in their order.
    pub memory: u64,
}

/// What a guest was given at an input point.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Inputs {
    /// For each device on the bus, in their order there. Devices at the end that were given nothing
    /// are left out.
    pub devices: Vec<Device>,
    /// The console.
    pub console: Console,
    /// It is told that it was paused, moved or copied.
    pub news: Option<Box<News>>,
    /// It is asked to quiesce.
    pub quiesce: Option<Quiesce>,
    /// It is asked to return memory, by the request with this number.
    pub reclaim: Option<u32>,
}

/// What happened between a guest and a device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Device {
    /// How many buffers the device took that the guest had queued for sending.
    pub taken: u32,
    /// Digest of what was in them.
    pub digest: u64,
    /// Packets that the guest received.
    pub packets: Vec<Packet>,
}

/// A packet that the guest received, with its virtio-net header.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Packet {
    /// Its length on the wire. If that is more than `bytes`, it did not fit the buffer, which was
    /// written to and not given to the guest.
    pub len: u32,
    /// What was written.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// What happened at the console.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Console {
    /// How many bytes of the output were taken.
    pub taken: u32,
    /// The input that was given.
    #[serde(with = "serde_bytes")]
    pub given: Vec<u8>,
    /// The input ended.
    pub ended: bool,
}

/// A quiesce request: fields of the control page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Quiesce {
    /// `quiesce_request`.
    pub number: u32,
    /// `quiesce_deadline_tsc`.
    pub deadline_tsc: u64,
}

/// The fields of the control page that a VMM writes before it resumes a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct News {
    /// `resume_reason`.
    pub reason: u32,
    /// `resume_count`.
    pub resume_count: u64,
    /// `away_ns`.
    pub away_ns: u64,
    /// `generation`.
    pub generation: [u64; 2],
    /// `entropy`.
    pub entropy: [u64; 8],
    /// `clock`.
    pub clock: Clock,
    /// `net_mmio`.
    pub net_mmio: u64,
    /// `memory_size`.
    pub memory_size: u64,
}

/// The clock in the control page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Clock {
    /// `tsc_base`.
    pub tsc_base: u64,
    /// `mono_base_ns`.
    pub mono_base_ns: u64,
    /// `mult`.
    pub mult: u64,
    /// `wall_offset_ns`.
    pub wall_offset_ns: u64,
    /// `tsc_hz`.
    pub tsc_hz: u64,
}

impl Inputs {
    /// Whether nothing was given or taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { devices, console, news, quiesce, reclaim } = self;
        devices.iter().all(Device::is_empty)
            && *console == Console::default()
            && news.is_none()
            && quiesce.is_none()
            && reclaim.is_none()
    }
}

impl Device {
    /// Whether nothing was given or taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken == 0 && self.packets.is_empty()
    }
}
