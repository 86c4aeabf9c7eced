//! Moves packets between the queues and the TAP, directly between guest memory and the kernel,
//! without allocating.

use super::{Counters, Forwarded, Own, Violation, registers::QUEUE_MAX, sources::LOOKED_AT};
use crate::{
    devices::{
        tap::{Tap, VNET_HEADER},
        throttle::Throttle,
    },
    memory::{GuestRam, Mmap},
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

/// Offset of `num_buffers` in the virtio-net header. The TAP does not set it, and the standard
/// requires it to be 1.
const NUM_BUFFERS: usize = 10;
/// Upper limit of packets moved in one pass in each direction, so that neither starves the other
/// nor the guest.
pub(super) const BATCH: usize = 256;

/// The result of a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// Packets taken from the guest.
    pub sent: usize,
    /// Packets given to the guest.
    pub received: usize,
    /// The guest has no receive buffer left, so waiting for packets is pointless.
    pub no_buffers: bool,
    /// Packets may still be waiting in either direction.
    pub more: bool,
    /// The TAP accepts no more packets for now, and there are some.
    pub blocked: bool,
    /// The guest exceeds its send rate, and the next packet has to wait this long.
    pub send_wait: Option<Duration>,
    /// Packets arrive above the guest's rate, and the next has to wait this long.
    pub receive_wait: Option<Duration>,
}

/// The parts of one chain: their place for the kernel, and for the guest. Reused for each packet.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    iov: Vec<libc::iovec>,
    guest: Vec<(u64, usize)>,
}

// SAFETY: the pointers in `iov` are only used within one call that has just filled them from guest
// memory it holds.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Gathers a chain whose parts must all be for the device to write (or all to read). Returns
    /// its length.
    fn gather(
        &mut self,
        mut chain: DescriptorChain<&Mmap>,
        ram: &GuestRam,
        for_writing: bool,
    ) -> Result<usize, String> {
        self.iov.clear();
        self.guest.clear();
        let mut total = 0;
        // virtio-queue stopped at an invalid chain if it ends before a descriptor says so.
        let mut unfinished = true;
        for descriptor in chain.by_ref() {
            let (address, len) = (descriptor.addr().0, descriptor.len() as usize);
            if descriptor.is_write_only() != for_writing {
                return Err(format!(
                    "the buffer at {address:#x} is {} the device to write",
                    if for_writing { "not for" } else { "for" }
                ));
            }
            let part = ram.slice(address, len).map_err(|e| format!("a buffer: {e}"))?;
            if self.iov.len() == usize::from(QUEUE_MAX) {
                return Err(format!("a packet of more than {QUEUE_MAX} parts"));
            }
            self.iov
                .push(libc::iovec { iov_base: part.ptr_guard_mut().as_ptr().cast(), iov_len: len });
            self.guest.push((address, len));
            total += len;
            unfinished = descriptor.has_next();
        }
        if unfinished {
            return Err(
                "a chain of descriptors that loops, leaves the table, or is too long".into()
            );
        }
        Ok(total)
    }

    /// Writes `bytes` at `offset` of the gathered chain.
    fn write(&self, ram: &GuestRam, mut offset: usize, mut bytes: &[u8]) {
        for &(address, len) in &self.guest {
            if bytes.is_empty() {
                return;
            }
            if offset >= len {
                offset -= len;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(len - offset));
            ram.write(address + offset as u64, now).expect("checked when gathered");
            bytes = later;
            offset = 0;
        }
    }

    /// Reads the beginning of the gathered chain, as much as `to` has room for.
    fn beginning<'b>(&self, ram: &GuestRam, to: &'b mut [u8; LOOKED_AT]) -> &'b [u8] {
        let mut len = 0;
        for &(address, part) in &self.guest {
            let now = part.min(LOOKED_AT - len);
            ram.read(address, &mut to[len..len + now]).expect("checked when gathered");
            len += now;
        }
        &to[..len]
    }

    /// Logs the first `written` bytes of the chain, which the kernel wrote.
    fn mark(&self, ram: &GuestRam, mut written: usize) {
        for &(address, len) in &self.guest {
            let n = len.min(written);
            ram.mark(address, n);
            written -= n;
        }
    }
}

fn next<'m>(
    queue: &mut Queue,
    ram: &'m GuestRam,
) -> Result<Option<DescriptorChain<&'m Mmap>>, String> {
    Ok(queue.iter(ram.mmap()).map_err(|e| e.to_string())?.next())
}

/// Undoes the last [`next`].
fn put_back(queue: &mut Queue) {
    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
}

fn done(queue: &mut Queue, ram: &GuestRam, head: u16, len: usize) -> Result<(), String> {
    queue.add_used(ram.mmap(), head, len as u32).map_err(|e| e.to_string())
}

/// Sends what the guest has queued, as its rate permits.
pub(super) fn send(
    queue: &mut Queue,
    ram: &GuestRam,
    tap: &Tap,
    own: Option<Own>,
    throttle: &mut Throttle,
    buffers: &mut Buffers,
    counters: &Counters,
) -> Result<Moved, Violation> {
    let broken = |what| Violation::Queue { queue: "transmit", what };
    let (mut moved, now) = (Moved::default(), Instant::now());
    while moved.sent < BATCH {
        let Some(chain) = next(queue, ram).map_err(broken)? else { return Ok(moved) };
        if !throttle.admits(now) {
            put_back(queue);
            moved.send_wait = Some(throttle.hold(now, &counters.tx_held));
            return Ok(moved);
        }
        let head = chain.head_index();
        let len = buffers.gather(chain, ram, false).map_err(broken)?;
        if len < VNET_HEADER {
            return Err(broken(format!("a packet of {len} bytes, shorter than its header")));
        }
        // The guest does not run meanwhile: what is checked is what is sent.
        if own.is_some_and(|own| !own.sent(buffers.beginning(ram, &mut [0; LOOKED_AT]))) {
            counters.tx_spoofed.fetch_add(1, Relaxed);
            throttle.passed(len - VNET_HEADER, now, &counters.tx_held);
            done(queue, ram, head, 0).map_err(broken)?;
            moved.sent += 1;
            continue;
        }
        // SAFETY: the buffers were just checked to lie in guest memory, which `ram` keeps mapped.
        match unsafe { tap.write_from(&buffers.iov) } {
            Ok(true) => Counters::add(&counters.tx_packets, &counters.tx_bytes, len),
            Ok(false) => {
                put_back(queue);
                moved.blocked = true;
                return Ok(moved);
            }
            Err(e) => {
                // A malformed packet, or a device that is down: the packet is lost, as on a wire.
                tracing::debug!("the host does not accept a packet of {len} bytes: {e}");
                counters.tx_dropped.fetch_add(1, Relaxed);
            }
        }
        // A dropped packet costs the host as much.
        throttle.passed(len - VNET_HEADER, now, &counters.tx_held);
        done(queue, ram, head, 0).map_err(broken)?;
        moved.sent += 1;
    }
    moved.more = true;
    Ok(moved)
}

/// Fills the guest's buffers: first with forwarded packets, then with what the TAP has, as the
/// guest's rate permits.
#[allow(clippy::too_many_arguments, reason = "the parts of one device, borrowed apart")]
pub(super) fn receive(
    queue: &mut Queue,
    ram: &GuestRam,
    tap: &Tap,
    throttle: &mut Throttle,
    buffers: &mut Buffers,
    counters: &Counters,
    forwarded: &Forwarded,
    room: usize,
) -> Result<Moved, Violation> {
    let broken = |what| Violation::Queue { queue: "receive", what };
    let (mut moved, now) = (Moved::default(), Instant::now());
    while moved.received < BATCH {
        let Some(chain) = next(queue, ram).map_err(broken)? else {
            moved.no_buffers = true;
            return Ok(moved);
        };
        let head = chain.head_index();
        let capacity = buffers.gather(chain, ram, true).map_err(broken)?;
        if capacity < room {
            return Err(broken(format!(
                "a buffer of {capacity} bytes, where a packet may need {room}"
            )));
        }
        let len = match take_forwarded(forwarded, ram, buffers, capacity) {
            Some(len) => len,
            None if !throttle.admits(now) => {
                put_back(queue);
                if tap.has_frame() {
                    moved.receive_wait = Some(throttle.hold(now, &counters.rx_held));
                }
                return Ok(moved);
            }
            // SAFETY: the buffers were just checked to lie in guest memory, which `ram` keeps
            // mapped.
            None => match unsafe { tap.read_into(&mut buffers.iov) } {
                Ok(Some(len)) => {
                    buffers.mark(ram, len.min(capacity));
                    len
                }
                Ok(None) => {
                    put_back(queue);
                    return Ok(moved);
                }
                Err(e) => {
                    tracing::debug!("the TAP device cannot be read: {e}");
                    put_back(queue);
                    return Ok(moved);
                }
            },
        };
        throttle.passed(len.saturating_sub(VNET_HEADER), now, &counters.rx_held);
        if len > capacity {
            counters.rx_dropped.fetch_add(1, Relaxed);
            put_back(queue);
            continue;
        }
        buffers.write(ram, NUM_BUFFERS, &1_u16.to_le_bytes());
        done(queue, ram, head, len).map_err(broken)?;
        Counters::add(&counters.rx_packets, &counters.rx_bytes, len);
        moved.received += 1;
    }
    moved.more = true;
    Ok(moved)
}

/// Puts a forwarded packet into the buffers, if there is one; returns its length.
fn take_forwarded(
    forwarded: &Forwarded,
    ram: &GuestRam,
    buffers: &Buffers,
    capacity: usize,
) -> Option<usize> {
    let frame = forwarded.pop()?;
    if frame.len() <= capacity {
        buffers.write(ram, 0, &frame);
    }
    Some(frame.len())
}
