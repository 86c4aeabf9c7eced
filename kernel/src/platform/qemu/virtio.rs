//! The slots for virtio-mmio devices, and the network device in one of them.

use core::{
    ptr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// The first slot.
pub const BASE: usize = 0xfeb0_0000;
/// All of them.
pub const SIZE: usize = SLOTS * STEP;

const SLOTS: usize = 24;
const STEP: usize = 512;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const NETWORK: u32 = 1;

// Offsets of registers.
const DEVICE_ID: usize = 0x08;
const QUEUE_NOTIFY: usize = 0x50;
const INTERRUPT_STATUS: usize = 0x60;
const INTERRUPT_ACKNOWLEDGE: usize = 0x64;

static NET: AtomicUsize = AtomicUsize::new(0);

fn register(slot: usize, offset: usize) -> *mut u32 {
    ptr::with_exposed_provenance_mut(slot + offset)
}

/// Finds the network device.
pub fn init() {
    let found = (0..SLOTS).map(|n| BASE + n * STEP).find(|slot| {
        // SAFETY: the slots' registers are mapped; reading these has no effect.
        unsafe {
            register(*slot, 0).read_volatile() == MAGIC
                && register(*slot, DEVICE_ID).read_volatile() == NETWORK
        }
    });
    NET.store(found.unwrap_or(0), Relaxed);
}

/// Its registers.
pub fn net_mmio() -> Option<usize> {
    Some(NET.load(Relaxed)).filter(|slot| *slot != 0)
}

/// Has it look at a queue.
pub fn notify_net(queue: u16) {
    if let Some(slot) = net_mmio() {
        // SAFETY: mapped. The device then reads queues and buffers, which the driver has made ready for it.
        unsafe { register(slot, QUEUE_NOTIFY).write_volatile(queue.into()) };
    }
}

/// Tells it that its interrupt was seen, so that it can send another.
pub fn acknowledge() {
    if let Some(slot) = net_mmio() {
        // SAFETY: mapped; touches no memory.
        unsafe {
            let status = register(slot, INTERRUPT_STATUS).read_volatile();
            if status != 0 {
                register(slot, INTERRUPT_ACKNOWLEDGE).write_volatile(status);
            }
        }
    }
}
