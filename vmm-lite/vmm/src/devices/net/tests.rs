//! The device on one end of a socket pair.

use super::{tap::Tap, *};
use crate::devices::{
    device::Device,
    virtio::{Parts, QueueState, QueueT, TransportState},
};
use crate::memory::{GuestRam, Writable};
use std::{
    io,
    os::{fd::RawFd, unix::net::UnixDatagram},
    sync::Mutex,
};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
use vmm_lite_lab::files::at_once;

fn state(mtu: u16) -> NetState {
    let transport = TransportState {
        features_sel: 0,
        driver_features_sel: 0,
        driver_features: 0,
        queue_sel: 0,
        status: VIRTIO_CONFIG_S_DRIVER_OK,
        queues: [QueueState::idle_at(0x10_0000), QueueState::idle_at(0x11_0000)],
    };
    NetState { mac: [2; 6], mtu, transport }
}

fn device(mtu: u16) -> Net {
    // The other end holds what is sent.
    let (device, other) = UnixDatagram::pair().unwrap();
    std::mem::forget(other);
    device.set_nonblocking(true).unwrap();
    Net::new(Tap::over(device.into()), [2; 6], mtu)
}

#[test]
fn longer_packets_than_the_devices_are_refused() {
    let ram = GuestRam::new(4 << 20).unwrap();
    let mut net = device(1499);
    let before = net.capture();
    let device = "none".into();
    let refused = StateError::Mtu(MtuTooSmall { guest: 1500, tap: 1499, device });
    assert_eq!(net.apply(&state(1500), ram.writable_while_stopped()), Err(refused));
    assert_eq!(net.capture(), before, "nothing has changed");
    net.apply(&state(1499), ram.writable_while_stopped()).unwrap();
}

/// As in a refused state, or after a bug of ours.
#[test]
fn a_transmit_queue_that_never_empties_is_a_violation() {
    let ram = GuestRam::new(4 << 20).unwrap();
    let mut net = device(1500);
    net.restrict_to(Some(Own::new([2; 6], None)));
    let live = state(1500);
    net.apply(&live, ram.writable_while_stopped()).unwrap();
    let [_, transmit] = net.transport.live_queues().unwrap();
    let queue = live.transport.queues[1];
    // What is returned counts as offered anew.
    transmit.set_next_used(queue.next_used + 1);
    transmit.set_used_ring_address(Some(queue.avail_ring as u32), None);
    ram.writable_while_stopped().write(queue.desc_table + 8, &64_u32.to_le_bytes()).unwrap();
    ram.writable_while_stopped().write(queue.desc_table, &0x12_0000_u64.to_le_bytes()).unwrap();
    ram.writable_while_stopped().write(queue.avail_ring + 2, &8_u16.to_le_bytes()).unwrap();
    let flushed = at_once(move || net.flush(ram.writable_while_stopped()));
    assert!(matches!(flushed, Err(Violation::Queue { queue: "transmit", .. })), "{flushed:?}");
}

/// A back end that keeps what the guest sends until it is released, and shows an observer what
/// comes in; the device is the same.
#[derive(Debug)]
struct HoldsAndMirrors {
    tap: Tap,
    shared: Arc<Mutex<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
}

impl Backend for HoldsAndMirrors {
    fn name(&self) -> &str {
        self.tap.name()
    }

    fn fd(&self) -> RawFd {
        self.tap.fd()
    }

    fn set_offload(&mut self, offload: u32) -> io::Result<()> {
        Backend::set_offload(&mut self.tap, offload)
    }

    fn send(&mut self, packet: Parts<'_>) -> io::Result<bool> {
        let mut copy = vec![0; packet.size()];
        packet.read(&mut copy);
        self.shared.lock().unwrap().sent.push(copy);
        Ok(true)
    }

    fn has_packet(&self) -> bool {
        self.tap.has_packet()
    }

    fn receive(&mut self, buffer: Parts<'_>) -> io::Result<Option<usize>> {
        let received = self.tap.receive(buffer)?;
        if let Some(len) = received {
            let mut copy = vec![0; len];
            buffer.read(&mut copy);
            self.shared.lock().unwrap().received.push(copy);
        }
        Ok(received)
    }
}

/// Puts a descriptor of the buffer at `at` into queue `queue`, and offers it.
fn offer(ram: Writable<'_>, queue: QueueState, at: u64, len: u32, for_writing: bool) {
    ram.write(queue.desc_table, &at.to_le_bytes()).unwrap();
    ram.write(queue.desc_table + 8, &len.to_le_bytes()).unwrap();
    ram.write(queue.desc_table + 12, &[u8::from(for_writing) * 2, 0, 0, 0]).unwrap();
    let slot = queue.avail_ring + 4 + 2 * u64::from(queue.next_avail % queue.size);
    ram.write(slot, &[0, 0]).unwrap();
    ram.write(queue.avail_ring + 2, &(queue.next_avail + 1).to_le_bytes()).unwrap();
}

#[test]
fn a_back_end_can_hold_back_what_is_sent_and_mirror_what_is_received() {
    let ram = GuestRam::new(4 << 20).unwrap();
    let (device, wire) = UnixDatagram::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    wire.set_nonblocking(true).unwrap();
    let tap = Tap::over(device.into());
    let shared = Arc::new(Mutex::new(Kept::default()));
    let backend = HoldsAndMirrors { tap: tap.try_clone().unwrap(), shared: Arc::clone(&shared) };
    let mut net = Net::new(backend, [2; 6], 1500);
    let mut live = state(1500);
    for queue in &mut live.transport.queues {
        (queue.next_avail, queue.next_used) = (0, 0);
    }
    net.apply(&live, ram.writable_while_stopped()).unwrap();
    let [receive, transmit] = live.transport.queues;
    let (into, from) = (0x12_0000, 0x13_0000);

    let packet: Vec<u8> = (0..80).collect();
    ram.writable_while_stopped().write(from, &packet).unwrap();
    offer(ram.writable_while_stopped(), transmit, from, 80, false);
    assert_eq!(
        net.pass(ram.writable_while_stopped()).unwrap().sent,
        1,
        "the guest has its buffer back"
    );
    let mut arrived = [0; 2000];
    assert!(wire.recv(&mut arrived).is_err(), "nothing has left");
    let held = shared.lock().unwrap().sent.pop().unwrap();
    tap.write(&held).unwrap();
    assert_eq!(wire.recv(&mut arrived).unwrap(), packet.len());
    assert_eq!(arrived[..packet.len()], packet);

    wire.send(&[7; 100]).unwrap();
    offer(ram.writable_while_stopped(), receive, into, 1600, true);
    assert_eq!(net.pass(ram.writable_while_stopped()).unwrap().received, 1);
    let mut got = [0; 100];
    ram.read(into, &mut got).unwrap();
    assert_eq!(got[12..], [7; 88], "what follows the header");
    assert_eq!(shared.lock().unwrap().received, [vec![7; 100]]);
}
