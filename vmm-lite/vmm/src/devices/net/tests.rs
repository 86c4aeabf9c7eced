//! The device on one end of a socket pair.

use super::{tap::Tap, *};
use crate::devices::virtio::{QueueState, QueueT, TransportState};
use std::os::unix::net::UnixDatagram;
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use vmm_lite_lab::files::at_once;

fn queue(at: u64) -> QueueState {
    QueueState {
        size: 256,
        ready: true,
        next_avail: 7,
        next_used: 7,
        desc_table: at,
        avail_ring: at + 0x1000,
        used_ring: at + 0x2000,
    }
}

fn state(mtu: u16) -> NetState {
    let transport = TransportState {
        features_sel: 0,
        driver_features_sel: 0,
        driver_features: 0,
        queue_sel: 0,
        status: VIRTIO_CONFIG_S_DRIVER_OK,
        queues: [queue(0x10_0000), queue(0x11_0000)],
    };
    NetState { mac: [2; 6], mtu, transport }
}

fn device(mtu: u16) -> Net {
    // The other end holds what is sent.
    let (device, other) = UnixDatagram::pair().unwrap();
    std::mem::forget(other);
    device.set_nonblocking(true).unwrap();
    Net::with_mtu(Tap::over(device.into()), [2; 6], mtu)
}

#[test]
fn longer_packets_than_the_devices_are_refused() {
    let ram = GuestRam::new(4 << 20).unwrap();
    let mut net = device(1499);
    let before = net.capture();
    let device = "none".into();
    let refused = StateError::Mtu(MtuTooSmall { guest: 1500, tap: 1499, device });
    assert_eq!(net.apply(&state(1500), &ram), Err(refused));
    assert_eq!(net.capture(), before, "nothing has changed");
    net.apply(&state(1499), &ram).unwrap();
}

/// As in a refused state, or after a bug of ours.
#[test]
fn a_transmit_queue_that_never_empties_is_a_violation() {
    let ram = GuestRam::new(4 << 20).unwrap();
    let mut net = device(1500);
    net.restrict_to(Some(Own::new([2; 6], None)));
    let live = state(1500);
    net.apply(&live, &ram).unwrap();
    let [_, transmit] = net.transport.live_queues().unwrap();
    let queue = live.transport.queues[1];
    // What is returned counts as offered anew.
    transmit.set_next_used(queue.next_used + 1);
    transmit.set_used_ring_address(Some(queue.avail_ring as u32), None);
    ram.write(queue.desc_table + 8, &64_u32.to_le_bytes()).unwrap();
    ram.write(queue.desc_table, &0x12_0000_u64.to_le_bytes()).unwrap();
    ram.write(queue.avail_ring + 2, &8_u16.to_le_bytes()).unwrap();
    let flushed = at_once(move || net.flush(&ram));
    assert!(matches!(flushed, Err(Violation::Queue { queue: "transmit", .. })), "{flushed:?}");
}
