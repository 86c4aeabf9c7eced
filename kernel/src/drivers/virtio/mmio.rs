//! The registers of a virtio-mmio device, version 2 (virtio 1.2, 4.2.2).

use core::ptr;

/// What [`offset::MAGIC`] reads as.
pub const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// The version of the register layout: the first that is not a legacy one.
pub const VERSION: u32 = 2;
/// [`offset::DEVICE`] of a network device.
pub const NETWORK: u32 = 1;

/// Where the registers are.
pub mod offset {
    /// [`MAGIC`](super::MAGIC).
    pub const MAGIC: usize = 0x000;
    /// [`VERSION`](super::VERSION).
    pub const VERSION: usize = 0x004;
    /// Kind of device.
    pub const DEVICE: usize = 0x008;
    /// Half of the features that the device offers.
    pub const DEVICE_FEATURES: usize = 0x010;
    /// Which half.
    pub const DEVICE_FEATURES_SELECT: usize = 0x014;
    /// Half of the features that the driver takes.
    pub const DRIVER_FEATURES: usize = 0x020;
    /// Which half.
    pub const DRIVER_FEATURES_SELECT: usize = 0x024;
    /// Which queue the following are of.
    pub const QUEUE_SELECT: usize = 0x030;
    /// Most descriptors.
    pub const QUEUE_SIZE_MAX: usize = 0x034;
    /// Descriptors.
    pub const QUEUE_SIZE: usize = 0x038;
    /// The queue is set up.
    pub const QUEUE_READY: usize = 0x044;
    /// Notifies the device of a queue, by its number.
    pub const QUEUE_NOTIFY: usize = 0x050;
    /// Interrupts that the driver has seen.
    pub const INTERRUPT_ACKNOWLEDGE: usize = 0x064;
    /// How far along the driver is.
    pub const STATUS: usize = 0x070;
    /// Descriptor table, low half; the high half follows, as for the two rings.
    pub const QUEUE_TABLES: [usize; 3] = [0x080, 0x090, 0x0a0];
    /// The device's own: for a network device its address first.
    pub const CONFIGURATION: usize = 0x100;
}

/// How registers are reached.
pub trait Registers {
    /// Reads one.
    fn read(&self, offset: usize) -> u32;
    /// Writes one.
    fn write(&self, offset: usize, value: u32);
    /// Reads a byte of the configuration.
    fn configuration(&self, offset: usize) -> u8;
}

/// Registers in memory.
#[derive(Clone, Copy, Debug)]
pub struct Mmio(usize);

impl Mmio {
    /// The registers at `address`.
    ///
    /// # Safety
    /// A virtio-mmio device is there, mapped, and has no other driver.
    #[must_use]
    pub const unsafe fn new(address: usize) -> Self {
        Self(address)
    }
}

impl Registers for Mmio {
    fn read(&self, offset: usize) -> u32 {
        // SAFETY: as promised to `new`; the offset is one of the device's.
        unsafe { ptr::with_exposed_provenance::<u32>(self.0 + offset).read_volatile() }
    }

    fn write(&self, offset: usize, value: u32) {
        // SAFETY: as promised to `new`; the offset is one of the device's.
        unsafe { ptr::with_exposed_provenance_mut::<u32>(self.0 + offset).write_volatile(value) }
    }

    fn configuration(&self, offset: usize) -> u8 {
        let at = self.0 + offset::CONFIGURATION + offset;
        // SAFETY: as promised to `new`; the configuration may be read by bytes.
        unsafe { ptr::with_exposed_provenance::<u8>(at).read_volatile() }
    }
}
