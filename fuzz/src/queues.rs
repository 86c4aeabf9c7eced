//! The network device, as a hostile guest drives it: registers, queues, buffers; and its state, as
//! a peer may send it.
//!
//! Input: steps as [`arbitrary`] makes them of bytes. A socket pair replaces the TAP device.

mod named;

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::atomic::Ordering::Relaxed,
};

use crate::memory::{MEMORY, with_copies, with_ram};
use arbitrary::{Arbitrary, Unstructured};
use named::Named;
use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair},
};
use vm_memory::{GuestAddress, GuestMemoryBackend, bitmap::Bitmap};
use vmm::{
    devices::{
        device::Device,
        net::{Net, NetState, tap::Tap},
    },
    memory::{PAGE, Writable},
};
use vmm_lite_interface::layout::{IMAGE_BASE, PAGE_SIZE};

/// Where a correct driver has its queues: table, available ring and used ring, a page each.
const QUEUES: [u64; 2] = [IMAGE_BASE + 0x1_0000, IMAGE_BASE + 0x1_4000];
/// Where it has its buffers.
const BUFFERS: u64 = IMAGE_BASE + 0x2_0000;
const MTU: u16 = 1500;
/// Largest packet that a socket pair can deliver.
const PACKET_MAX: usize = 256 << 10;
/// More steps cover nothing new.
const STEPS: usize = 96;
/// Passes compare all of memory.
const PASSES: usize = 24;

// Registers of virtio-mmio.
const FEATURES_SEL: u64 = 0x24;
const FEATURES: u64 = 0x20;
const QUEUE_SEL: u64 = 0x30;
const QUEUE_NUM: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const STATUS: u64 = 0x70;
const QUEUE_DESC: u64 = 0x80;
const QUEUE_DRIVER: u64 = 0x90;
const QUEUE_DEVICE: u64 = 0xa0;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Register {
        at: u8,
        value: u32,
    },
    Odd {
        at: u16,
        bytes: [u8; 8],
        len: u8,
    },
    Read {
        at: u16,
        len: u8,
    },
    /// All initial steps of a driver.
    SetUp {
        size: u8,
        features: u32,
    },
    Descriptor {
        transmit: bool,
        index: u8,
        at: u32,
        len: u16,
        flags: u8,
        next: u8,
        far: bool,
    },
    Available {
        transmit: bool,
        head: u8,
    },
    Index {
        transmit: bool,
        index: u16,
    },
    Memory {
        at: u32,
        bytes: &'a [u8],
    },
    Pass,
    Flush,
    Late(&'a [u8]),
    Arrives(&'a [u8]),
    Moves,
    State(State),
}

#[derive(Arbitrary, Debug)]
struct State {
    mtu: u16,
    driver_features: u64,
    status: u8,
    size: [u16; 2],
    ready: [bool; 2],
    next: [u16; 4],
    rings: [u32; 6],
}

/// Whatever the guest does: no panic, no packet that it did not queue, no write except to what its
/// queues name, and each written page is marked dirty.
pub fn check(data: &[u8]) {
    with_ram(|ram| drive(data, ram));
}

fn drive(data: &[u8], ram: Writable<'_>) {
    let mut input = Unstructured::new(data);
    let mut host = Host::new(ram);
    for _ in 0..STEPS {
        match input.arbitrary() {
            Ok(step) if !input.is_empty() && !host.over => host.step(step),
            _ => break,
        }
    }
    if !host.over {
        host.pass(true);
    }
}

struct Host<'r> {
    ram: Writable<'r>,
    net: Net,
    wire: OwnedFd,
    passes: usize,
    /// The guest broke a rule, and was ended.
    over: bool,
}

impl<'r> Host<'r> {
    fn new(ram: Writable<'r>) -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (device, wire) =
            socketpair(AddressFamily::Unix, SockType::Datagram, None, flags).expect("sockets");
        let net = Net::new(Tap::over(device), [2, 0, 0, 0, 0, 1], MTU);
        Self { ram, net, wire, passes: 0, over: false }
    }

    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Register { at, value } => self.register(u64::from(at) & !3, value),
            Step::Odd { at, bytes, len } => {
                let len = 1 + usize::from(len % 8);
                self.over |=
                    self.net.write(u64::from(at) % 0x200, &bytes[..len], self.ram).is_err();
            }
            Step::Read { at, len } => {
                let mut to = [0; 8];
                let to = &mut to[..1 + usize::from(len % 8)];
                self.over |= self.net.read(u64::from(at) % 0x200, to).is_err();
            }
            Step::SetUp { size, features } => self.set_up(size, features),
            Step::Descriptor { transmit, index, at, len, flags, next, far } => {
                let at = if far { u64::from(at) << 4 } else { BUFFERS + u64::from(at) % 0x8_0000 };
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&at.to_le_bytes());
                bytes[8..12].copy_from_slice(&u32::from(len).to_le_bytes());
                bytes[12..14].copy_from_slice(&u16::from(flags % 8).to_le_bytes());
                bytes[14..].copy_from_slice(&u16::from(next).to_le_bytes());
                self.write(self.queue(transmit)[0].wrapping_add(16 * u64::from(index)), &bytes);
            }
            Step::Available { transmit, head } => {
                let [_, ring, _] = self.queue(transmit);
                let size = self.net.capture().transport.queues[usize::from(transmit)].size.max(1);
                let mut index = [0; 2];
                if self.ram.read(ring.wrapping_add(2), &mut index).is_ok() {
                    let index = u16::from_le_bytes(index);
                    let entry = ring.wrapping_add(4 + 2 * u64::from(index % size));
                    self.write(entry, &u16::from(head).to_le_bytes());
                    self.write(ring.wrapping_add(2), &index.wrapping_add(1).to_le_bytes());
                }
            }
            Step::Index { transmit, index } => {
                self.write(self.queue(transmit)[1].wrapping_add(2), &index.to_le_bytes());
            }
            Step::Memory { at, bytes } => self.write(u64::from(at) % MEMORY, bytes),
            Step::Pass => self.pass(true),
            Step::Flush => self.pass(false),
            Step::Late(frame) => {
                let _ = self.net.forwarded().push(frame.to_vec());
            }
            Step::Arrives(frame) => {
                let sent = send(self.wire.as_raw_fd(), frame, MsgFlags::empty());
                assert!(sent.is_ok() || sent == Err(Errno::EAGAIN), "{sent:?}");
            }
            Step::Moves => {
                let state = self.net.capture();
                // A queue that is not ready may have any addresses, and a ready one was checked.
                self.net.apply(&state, self.ram).expect("what was captured here fits here");
                assert_eq!(self.net.capture(), state);
            }
            Step::State(state) => self.apply(&state),
        }
    }

    /// Where the driver assumes its queue.
    fn queue(&self, transmit: bool) -> [u64; 3] {
        let queue = self.net.capture().transport.queues[usize::from(transmit)];
        [queue.desc_table, queue.avail_ring, queue.used_ring]
    }

    fn write(&self, at: u64, bytes: &[u8]) {
        // Outside of memory the guest cannot write either.
        let _ = self.ram.write(at, bytes);
    }

    fn register(&mut self, at: u64, value: u32) {
        self.over |= self.net.write(at, &value.to_le_bytes(), self.ram).is_err();
    }

    fn set_up(&mut self, size: u8, features: u32) {
        self.register(STATUS, 0);
        self.register(FEATURES_SEL, 1);
        self.register(FEATURES, 1);
        self.register(FEATURES_SEL, 0);
        self.register(FEATURES, features);
        self.register(STATUS, 1 | 2 | 8);
        for (queue, at) in QUEUES.into_iter().enumerate() {
            self.register(QUEUE_SEL, queue as u32);
            self.register(QUEUE_NUM, 1 << (size % 9));
            for (register, page) in [(QUEUE_DESC, 0), (QUEUE_DRIVER, 1), (QUEUE_DEVICE, 2)] {
                self.register(register, (at + page * PAGE_SIZE) as u32);
                self.register(register + 4, 0);
            }
            self.register(QUEUE_READY, 1);
        }
        self.register(STATUS, 1 | 2 | 8 | 4);
    }

    /// A peer's state is accepted or refused, and a refusal changes nothing.
    fn apply(&mut self, state: &State) {
        let before = self.net.capture();
        let mut claimed: NetState = before.clone();
        claimed.mtu = state.mtu;
        claimed.transport.status = state.status.into();
        claimed.transport.driver_features = state.driver_features & 0x1_ffff_ffff;
        for (n, queue) in claimed.transport.queues.iter_mut().enumerate() {
            (queue.size, queue.ready) = (state.size[n], state.ready[n]);
            (queue.next_avail, queue.next_used) = (state.next[2 * n], state.next[2 * n + 1]);
            let [table, available, used] = [0, 1, 2].map(|r| u64::from(state.rings[3 * n + r]));
            (queue.desc_table, queue.avail_ring, queue.used_ring) =
                (table << 4, available << 1, used << 2);
        }
        match self.net.apply(&claimed, self.ram) {
            Ok(()) => assert_eq!(self.net.capture(), claimed),
            Err(_) => assert_eq!(self.net.capture(), before, "it was partly applied"),
        }
    }

    /// The doorbell: packets go both ways, or out only.
    fn pass(&mut self, both: bool) {
        if self.passes == PASSES {
            return;
        }
        self.passes += 1;
        let counters = self.net.counters();
        let sent = counters.tx_packets.load(Relaxed);
        with_copies(|[before, after]| {
            self.ram.read(0, before).expect("all of it");
            let named = Named::of(&self.net.capture(), before);
            let _ = self.bitmap().take();
            let passed =
                if both { self.net.pass(self.ram).map(drop) } else { self.net.flush(self.ram) };
            self.over |= passed.is_err();
            self.ram.read(0, after).expect("all of it");
            self.look_at_memory(&named, before, after);
            let sent = counters.tx_packets.load(Relaxed) - sent;
            self.look_at_packets(&named, before, sent);
        });
    }

    fn look_at_memory(&self, named: &Named, before: &[u8], after: &[u8]) {
        for (page, (was, is)) in before.chunks(PAGE).zip(after.chunks(PAGE)).enumerate() {
            if was == is {
                continue;
            }
            assert!(self.bitmap().dirty_at(page * PAGE), "page {page} was written and not marked");
            for (n, _) in was.iter().zip(is).enumerate().filter(|(_, (was, is))| was != is) {
                let at = (page * PAGE + n) as u64;
                let may = named.tangled || named.may_write(at);
                assert!(may, "{at:#x} was written, which no queue names");
            }
        }
    }

    fn bitmap(&self) -> &vmm::memory::Marks {
        let region = self.ram.mmap().find_region(GuestAddress(0)).expect("one region");
        vm_memory::MmapRegion::bitmap(region)
    }

    /// Sent packets are those that the guest queued, in its order.
    fn look_at_packets(&self, named: &Named, before: &[u8], sent: u64) {
        let mut expected = named.packets.iter();
        let mut buffer = vec![0; PACKET_MAX];
        let mut count = 0;
        loop {
            match recv(self.wire.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(len) => {
                    count += 1;
                    let queued = named.tangled
                        || expected.any(|parts| Named::is_packet(parts, before, &buffer[..len]));
                    assert!(queued, "a packet of {len} bytes that the guest did not queue");
                }
                Err(Errno::EAGAIN) => break,
                Err(e) => panic!("a pair of sockets fails: {e}"),
            }
        }
        assert_eq!(count, sent);
    }
}
