//! The network device: virtio-net over virtio-mmio.
//!
//! Received frames are processed where the device put them, and frames to be sent are made where
//! the device reads them. Checksums are left to the device where it offers that, and so is cutting
//! large TCP segments.

mod header;
mod transmit;

use super::{
    memory::{PAGE, Shared},
    mmio::{MAGIC, NETWORK, Registers, VERSION, offset},
    queue::{Queue, SIZE_MAX},
};
use crate::drivers::{Frame, NetDevice};
use core::fmt;
use smoltcp::{
    phy::{Checksum, Device, DeviceCapabilities, Medium, SegmentationCapabilities},
    time::Instant,
};
pub use transmit::Room;
use transmit::Transmit;

mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const FAILED: u32 = 128;
}

mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const GUEST_CSUM: u64 = 1 << 1;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const HOST_TSO4: u64 = 1 << 11;
    pub const VERSION_1: u64 = 1 << 32;
}

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const ETHERNET_HEADER: usize = 14;
/// MTU of a device that reports none, bytes.
const MTU: usize = 1500;
/// Largest one that is used; more would make buffers large.
const MTU_MAX: usize = 9000;

/// Why there is no network device to be driven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// There is no network device.
    NotNetwork,
    /// It has only the legacy interface.
    Legacy,
    /// It does not take the features chosen.
    Features,
    /// It lacks a queue, or its queues are too small.
    Queues,
    /// No memory for buffers.
    Memory,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotNetwork => "there is no virtio network device",
            Self::Legacy => {
                "the network device is a legacy one; start QEMU with `-global \
                 virtio-mmio.force-legacy=off`"
            }
            Self::Features => "the network device does not agree on features",
            Self::Queues => "the network device lacks a queue",
            Self::Memory => {
                "not enough memory for the network device's buffers; give the guest more"
            }
        })
    }
}

impl core::error::Error for Error {}

/// See the module.
#[derive(Debug)]
pub struct VirtioNet {
    features: u64,
    mac: [u8; 6],
    mtu: usize,
    receive: Queue,
    /// A buffer for each descriptor of the receive queue, at its number times `stride`.
    buffers: Shared,
    stride: usize,
    transmit: Transmit,
}

impl VirtioNet {
    /// Sets the device going.
    ///
    /// # Errors
    /// Why it cannot be driven.
    pub fn new(registers: &impl Registers) -> Result<Self, Error> {
        if registers.read(offset::MAGIC) != MAGIC || registers.read(offset::DEVICE) != NETWORK {
            return Err(Error::NotNetwork);
        }
        if registers.read(offset::VERSION) != VERSION {
            return Err(Error::Legacy);
        }
        registers.write(offset::STATUS, 0);
        registers.write(offset::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        let made = Self::set_up(registers);
        if made.is_err() {
            registers.write(offset::STATUS, status::FAILED);
        }
        let (features, mac, mtu, receive, buffers, stride, transmit) = made?;
        let mut this = Self { features, mac, mtu, receive, buffers, stride, transmit };
        let going = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        refill(&mut this.receive, &this.buffers, this.stride, this.mtu);
        registers.write(offset::STATUS, going);
        Ok(this)
    }

    #[allow(clippy::type_complexity, reason = "the parts of a device, taken apart again at once")]
    fn set_up(
        registers: &impl Registers,
    ) -> Result<(u64, [u8; 6], usize, Queue, Shared, usize, Transmit), Error> {
        let features = negotiate(registers)?;
        let byte = |n| registers.configuration(n);
        let mac = core::array::from_fn(byte);
        let mtu = if features & feature::MTU != 0 {
            usize::from(u16::from_le_bytes([byte(10), byte(11)])).clamp(68, MTU_MAX)
        } else {
            MTU
        };
        let frame = header::LEN + ETHERNET_HEADER + mtu;
        // Two to a page where they fit, else whole pages, so that no page is shared by more than
        // whole buffers.
        let stride = if frame <= PAGE / 2 { PAGE / 2 } else { frame.next_multiple_of(PAGE) };
        let receive = queue(registers, RECEIVE)?;
        let buffers = Shared::new(stride * usize::from(receive.size())).ok_or(Error::Memory)?;
        let segments = features & feature::HOST_TSO4 != 0;
        let transmit = Transmit::new(
            queue(registers, TRANSMIT)?,
            ETHERNET_HEADER + mtu,
            features & feature::CSUM != 0,
            segments,
        )
        .ok_or(Error::Memory)?;
        Ok((features, mac, mtu, receive, buffers, stride, transmit))
    }

    /// Its Ethernet address.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Calls `notify` with each queue that the device has been given something in since the last
    /// call, and whether it wants a notification.
    pub fn kick(&mut self, mut notify: impl FnMut(u16, bool)) {
        for (n, queue) in [(RECEIVE, &mut self.receive), (TRANSMIT, &mut self.transmit.queue)] {
            if queue.has_news() {
                notify(n as u16, queue.should_notify());
            }
        }
    }

    /// Whether every frame that was given to the device has been sent.
    pub fn has_sent_all(&mut self) -> bool {
        self.transmit.reclaim();
        self.transmit.queue.under_way() == 0
    }

    /// Calls `page` with the address of each page whose content need not be kept: of receive
    /// buffers without a frame, and of transmit buffers without one to be sent.
    pub fn empty_pages(&mut self, mut page: impl FnMut(usize)) {
        let start = self.buffers.physical(0) as usize;
        let per_page = (PAGE / self.stride).max(1);
        let pages_each = (self.stride / PAGE).max(1);
        let count = usize::from(self.receive.size());
        let filled = self.receive.done();
        for first in (0..count).step_by(per_page) {
            if (first..first + per_page).any(|id| filled.contains(&(id as u16))) {
                continue;
            }
            for n in 0..pages_each {
                page(start + first * self.stride + n * PAGE);
            }
        }
        self.transmit.empty_pages(page);
    }

    fn front(&mut self) -> Option<(*const u8, usize)> {
        loop {
            let (id, len) = self.receive.peek()?;
            let len = len as usize;
            if len > header::LEN {
                let at = usize::from(id) * self.stride;
                return Some((self.buffers.at(at, len).cast_const(), len));
            }
            self.recycle();
        }
    }

    fn recycle(&mut self) {
        self.receive.take();
        refill(&mut self.receive, &self.buffers, self.stride, self.mtu);
    }
}

fn negotiate(registers: &impl Registers) -> Result<u64, Error> {
    let half = |n: u32| {
        registers.write(offset::DEVICE_FEATURES_SELECT, n);
        u64::from(registers.read(offset::DEVICE_FEATURES))
    };
    let offered = half(0) | half(1) << 32;
    let mut features = offered
        & (feature::VERSION_1
            | feature::MAC
            | feature::MTU
            | feature::CSUM
            | feature::GUEST_CSUM
            | feature::HOST_TSO4);
    if features & feature::CSUM == 0 {
        features &= !feature::HOST_TSO4;
    }
    if features & feature::VERSION_1 == 0 {
        return Err(Error::Legacy);
    }
    for n in 0..2 {
        registers.write(offset::DRIVER_FEATURES_SELECT, n);
        registers.write(offset::DRIVER_FEATURES, (features >> (32 * n)) as u32);
    }
    registers.write(offset::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
    if registers.read(offset::STATUS) & status::FEATURES_OK == 0 {
        return Err(Error::Features);
    }
    Ok(features)
}

/// Sets up queue `n`.
fn queue(registers: &impl Registers, n: u32) -> Result<Queue, Error> {
    registers.write(offset::QUEUE_SELECT, n);
    let max = registers.read(offset::QUEUE_SIZE_MAX).min(u32::from(SIZE_MAX)) as u16;
    if max < 2 {
        return Err(Error::Queues);
    }
    let size = 1 << max.ilog2();
    let mut queue = Queue::new(size).ok_or(Error::Memory)?;
    queue.want_interrupts(n == RECEIVE);
    registers.write(offset::QUEUE_SIZE, size.into());
    for (register, address) in offset::QUEUE_TABLES.into_iter().zip(queue.addresses()) {
        registers.write(register, address as u32);
        registers.write(register + 4, (address >> 32) as u32);
    }
    registers.write(offset::QUEUE_READY, 1);
    Ok(queue)
}

impl NetDevice for VirtioNet {
    fn peek(&mut self) -> Option<Frame<'_>> {
        let (at, len) = self.front()?;
        // SAFETY: the device is done with this buffer until it is given back, which needs `&mut
        // self`.
        let bytes = unsafe { core::slice::from_raw_parts(at, len) };
        let (header, bytes) = bytes.split_first_chunk()?;
        let checksum_good =
            self.features & feature::GUEST_CSUM != 0 && header::checksum_good(header);
        Some(Frame { bytes, checksum_good })
    }

    fn discard(&mut self) {
        if self.front().is_some() {
            self.recycle();
        }
    }

    fn has_room(&mut self) -> bool {
        self.transmit.has_room()
    }
}

impl Device for VirtioNet {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Room<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, Room<'_>)> {
        if !self.transmit.has_room() {
            return None;
        }
        let (at, len) = self.front()?;
        let Self { receive, buffers, stride, transmit, mtu, .. } = self;
        let received = Received { at, len, receive, buffers, stride: *stride, mtu: *mtu };
        Some((received, Room::new(transmit)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room<'_>> {
        self.transmit.has_room().then_some(Room::new(&mut self.transmit))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        // What is received is verified before it gets to smoltcp.
        let checksum =
            if self.features & feature::CSUM != 0 { Checksum::None } else { Checksum::Tx };
        (capabilities.checksum.tcp, capabilities.checksum.udp) = (checksum, checksum);
        let mut segmentation = SegmentationCapabilities::default();
        segmentation.tcpv4 = self.transmit.segments_max();
        capabilities.segmentation = segmentation;
        capabilities
    }
}

/// A received frame, whose buffer goes back to the device when it has been processed.
#[derive(Debug)]
pub struct Received<'a> {
    at: *const u8,
    len: usize,
    receive: &'a mut Queue,
    buffers: &'a Shared,
    stride: usize,
    mtu: usize,
}

impl smoltcp::phy::RxToken for Received<'_> {
    fn consume<T, F: FnOnce(&[u8]) -> T>(self, f: F) -> T {
        // SAFETY: the device is done with this buffer until it is given back below.
        let bytes = unsafe { core::slice::from_raw_parts(self.at, self.len) };
        let result = f(&bytes[header::LEN..]);
        self.receive.take();
        refill(self.receive, self.buffers, self.stride, self.mtu);
        result
    }
}

/// Gives the device all buffers that are not its own.
fn refill(receive: &mut Queue, buffers: &Shared, stride: usize, mtu: usize) {
    let len = header::LEN + ETHERNET_HEADER + mtu;
    while let Some(id) = receive.next_free() {
        receive.give(buffers.physical(usize::from(id) * stride), len as u32, true);
    }
}
