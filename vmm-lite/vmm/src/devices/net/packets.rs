//! Moves packets between the queues and the back end, which gets their places in guest memory:
//! nothing is copied or allocated here.

use super::{
    Counters, Forwarded, Own, Violation,
    backend::{Backend, VNET_HEADER},
    config::{MODEL, RECEIVE, TRANSMIT},
    sources::LOOKED_AT,
};
use crate::{
    devices::{
        inputs::Recording,
        throttle::Throttle,
        virtio::{Buffers, Parts, Queue, done, next, put_back},
    },
    memory::Writable,
};
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

/// Offset of `num_buffers` in the virtio-net header. A TAP does not set it, and the standard
/// requires it to be 1.
pub(super) const NUM_BUFFERS: usize = 10;
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
    /// The back end accepts no more packets for now, and there are some.
    pub blocked: bool,
    /// The guest exceeds its send rate, and the next packet has to wait this long.
    pub send_wait: Option<Duration>,
    /// Packets arrive above the guest's rate, and the next has to wait this long.
    pub receive_wait: Option<Duration>,
}

/// Sends what the guest has queued, as its rate permits.
#[allow(clippy::too_many_arguments, reason = "the parts of one device, borrowed apart")]
pub(super) fn send(
    queue: &mut Queue,
    ram: Writable<'_>,
    backend: &mut dyn Backend,
    own: Option<Own>,
    throttle: &mut Throttle,
    buffers: &mut Buffers,
    counters: &Counters,
    recording: &mut Recording,
) -> Result<Moved, Violation> {
    let broken = |what| MODEL.broken(TRANSMIT, what);
    let (mut moved, now) = (Moved::default(), Instant::now());
    while moved.sent < BATCH {
        let Some(chain) = next(queue, ram).map_err(broken)? else { return Ok(moved) };
        if !throttle.admits(now) {
            put_back(queue);
            moved.send_wait = Some(throttle.hold(now, &counters.tx_held));
            return Ok(moved);
        }
        let head = chain.head_index();
        let packet = buffers.gather(chain, ram, false).map_err(broken)?;
        let len = packet.size();
        if len < VNET_HEADER {
            return Err(broken(format!("a packet of {len} bytes, shorter than its header")));
        }
        // The guest does not run meanwhile: what is checked is what is sent.
        if own.is_some_and(|own| !own.sent(packet.read(&mut [0; LOOKED_AT]))) {
            counters.tx_spoofed.fetch_add(1, Relaxed);
            throttle.passed(len - VNET_HEADER, now, &counters.tx_held);
            recording.taken(packet);
            done(queue, ram, head, 0).map_err(broken)?;
            moved.sent += 1;
            continue;
        }
        match backend.send(packet) {
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
        recording.taken(packet);
        done(queue, ram, head, 0).map_err(broken)?;
        moved.sent += 1;
    }
    moved.more = true;
    Ok(moved)
}

/// Fills the guest's buffers: first with forwarded packets, then with what the back end has, as the
/// guest's rate permits.
#[allow(clippy::too_many_arguments, reason = "the parts of one device, borrowed apart")]
pub(super) fn receive(
    queue: &mut Queue,
    ram: Writable<'_>,
    backend: &mut dyn Backend,
    throttle: &mut Throttle,
    buffers: &mut Buffers,
    counters: &Counters,
    recording: &mut Recording,
    forwarded: &Forwarded,
    room: usize,
) -> Result<Moved, Violation> {
    let broken = |what| MODEL.broken(RECEIVE, what);
    let (mut moved, now) = (Moved::default(), Instant::now());
    while moved.received < BATCH {
        let Some(chain) = next(queue, ram).map_err(broken)? else {
            moved.no_buffers = true;
            return Ok(moved);
        };
        let head = chain.head_index();
        let buffer = buffers.gather(chain, ram, true).map_err(broken)?;
        let capacity = buffer.size();
        if capacity < room {
            return Err(broken(format!(
                "a buffer of {capacity} bytes, where a packet may need {room}"
            )));
        }
        let len = match take_forwarded(forwarded, buffer) {
            Some(len) => len,
            None if !throttle.admits(now) => {
                put_back(queue);
                if backend.has_packet() {
                    moved.receive_wait = Some(throttle.hold(now, &counters.rx_held));
                }
                return Ok(moved);
            }
            None => match backend.receive(buffer) {
                Ok(Some(len)) => len,
                Ok(None) => {
                    put_back(queue);
                    return Ok(moved);
                }
                Err(e) => {
                    tracing::debug!("{} cannot be read: {e}", backend.name());
                    put_back(queue);
                    return Ok(moved);
                }
            },
        };
        throttle.passed(len.saturating_sub(VNET_HEADER), now, &counters.rx_held);
        if len > capacity {
            recording.received(len, buffer);
            counters.rx_dropped.fetch_add(1, Relaxed);
            put_back(queue);
            continue;
        }
        buffer.write(NUM_BUFFERS, &1_u16.to_le_bytes());
        recording.received(len, buffer);
        done(queue, ram, head, len).map_err(broken)?;
        Counters::add(&counters.rx_packets, &counters.rx_bytes, len);
        moved.received += 1;
    }
    moved.more = true;
    Ok(moved)
}

/// Puts a forwarded packet into the buffer, if there is one; returns its length.
fn take_forwarded(forwarded: &Forwarded, buffer: Parts<'_>) -> Option<usize> {
    let frame = forwarded.pop()?;
    if frame.len() <= buffer.size() {
        buffer.write(0, &frame);
    }
    Some(frame.len())
}
