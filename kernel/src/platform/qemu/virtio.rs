//! The slots for virtio-mmio devices, and the network device in one of them.

use core::{
    ptr,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::drivers::virtio::mmio::{MAGIC, NETWORK, offset};

/// The first slot.
pub const BASE: usize = 0xfeb0_0000;
/// All of them.
pub const SIZE: usize = SLOTS * STEP;

const SLOTS: usize = 8;
/// Input of the IOAPIC for the first; the others follow.
const FIRST_PIN: u8 = 5;
const STEP: usize = 512;

static NET: AtomicUsize = AtomicUsize::new(0);

fn register(slot: usize, offset: usize) -> *mut u32 {
    ptr::with_exposed_provenance_mut(slot + offset)
}

/// Finds the network device; returns the input of the IOAPIC to which it is connected.
pub fn init() -> Option<u8> {
    // QEMU fills them from the last.
    let found = (0..SLOTS).rev().map(|n| BASE + n * STEP).find(|slot| {
        // SAFETY: the slots' registers are mapped; reading these has no effect.
        unsafe {
            register(*slot, offset::MAGIC).read_volatile() == MAGIC
                && register(*slot, offset::DEVICE).read_volatile() == NETWORK
        }
    });
    NET.store(found.unwrap_or(0), Relaxed);
    pin()
}

/// To which input it is connected.
pub fn pin() -> Option<u8> {
    net_mmio().map(|slot| FIRST_PIN + ((slot - BASE) / STEP) as u8)
}

/// Its registers.
pub fn net_mmio() -> Option<usize> {
    Some(NET.load(Relaxed)).filter(|slot| *slot != 0)
}

/// Notifies it of a queue.
pub fn notify_net(queue: u16) {
    if let Some(slot) = net_mmio() {
        // SAFETY: mapped. The device then reads queues and buffers, which the driver has made ready
        // for it.
        unsafe { register(slot, offset::QUEUE_NOTIFY).write_volatile(queue.into()) };
    }
}

/// Acknowledges its interrupt, so that it can send another. The queues are polled after this.
pub fn acknowledge() {
    const ALL: u32 = 3;
    if let Some(slot) = net_mmio() {
        // SAFETY: mapped; touches no memory.
        unsafe { register(slot, offset::INTERRUPT_ACKNOWLEDGE).write_volatile(ALL) };
    }
}
