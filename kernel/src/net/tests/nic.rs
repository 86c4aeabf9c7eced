//! The stack on the virtio driver, with a device made for the test on the other side of its
//! registers and queues.

use super::wire::{A, B, at, config, noise};
use crate::{
    drivers::{
        NetDevice,
        virtio::{
            mmio::{Registers, offset},
            net::{Error as DriverError, VirtioNet},
            queue::device::Served,
        },
    },
    net::{
        Error,
        calls::{Kind, Shutdown},
        stack::{Config, Stack},
    },
};
use alloc::{collections::VecDeque, rc::Rc, vec, vec::Vec};
use core::cell::RefCell;

const OFFERED: u64 = 1 << 32 | 1 << 11 | 1 << 5 | 1 << 3 | 3;

#[derive(Debug, Default)]
struct State {
    offered: u64,
    version: u32,
    kind: u32,
    queue_max: u32,
    select: [u32; 3],
    features: u64,
    status: u32,
    sizes: [u32; 2],
    tables: [[u64; 3]; 2],
    served: Vec<Served>,
    arrived: VecDeque<Vec<u8>>,
    /// Frames longer than the MTU that the driver left to the device to cut.
    cut: usize,
    partial: usize,
}

/// A device as its driver and the test see it.
#[derive(Clone, Debug)]
struct Device(Rc<RefCell<State>>);

impl Device {
    fn new(offered: u64) -> Self {
        let state = State { offered, version: 2, kind: 1, queue_max: 256, ..State::default() };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Sends what the driver has queued to `other`, and gives the driver what has arrived.
    fn serve(&self, other: &Self) {
        let state = &mut *self.0.borrow_mut();
        if state.served.is_empty() {
            for n in 0..2 {
                state.served.push(Served::new(state.tables[n], state.sizes[n] as u16));
            }
        }
        while let Some((id, address, len, writes)) = state.served[1].next() {
            assert!(!writes);
            // SAFETY: a buffer that the driver has just given.
            let bytes = unsafe { core::slice::from_raw_parts(address as *const u8, len) };
            let mut segments = cut(bytes, state.features);
            if other.0.borrow().features & 2 == 0 {
                segments.iter_mut().for_each(complete);
            }
            state.cut += usize::from(segments.len() > 1);
            state.partial += usize::from(bytes[0] & 1);
            other.0.borrow_mut().arrived.extend(segments);
            state.served[1].complete(id.into(), 0);
        }
        while let Some(frame) = state.arrived.pop_front() {
            let Some((id, address, len, writes)) = state.served[0].next() else {
                state.arrived.push_front(frame);
                break;
            };
            assert!(writes && len >= frame.len(), "{len} for {}", frame.len());
            // SAFETY: a buffer that the driver has just given.
            let bytes = unsafe { core::slice::from_raw_parts_mut(address as *mut u8, len) };
            bytes[..frame.len()].copy_from_slice(&frame);
            state.served[0].complete(id.into(), frame.len() as u32);
        }
    }
}

/// Fills in a partial checksum, for a receiver that does not take such.
#[allow(clippy::ptr_arg, reason = "called for each of them")]
fn complete(frame: &mut Vec<u8>) {
    let word = |n: usize| usize::from(u16::from_le_bytes([frame[n], frame[n + 1]]));
    if frame[0] & 1 == 0 {
        return;
    }
    let (start, checksum_at) = (12 + word(6), 12 + word(6) + word(8));
    // The sum that is there is of the whole length before it was cut: only the pseudo header of
    // what is here counts.
    let ip = 12 + 14;
    let mut sum: u32 = 6 + (frame.len() - start) as u32;
    frame[checksum_at..checksum_at + 2].fill(0);
    for part in [&frame[ip + 12..ip + 20], &frame[start..]] {
        let words =
            part.chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], *w.get(1).unwrap_or(&0)])));
        sum += words.sum::<u32>();
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[checksum_at..checksum_at + 2].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame[0] &= !1;
}

/// Cuts a frame with its header as the header asks; the checksums of what comes out are left
/// partial.
fn cut(bytes: &[u8], features: u64) -> Vec<Vec<u8>> {
    let word = |n: usize| usize::from(u16::from_le_bytes([bytes[n], bytes[n + 1]]));
    if bytes[1] == 0 {
        assert!(bytes.len() <= 12 + 1514);
        return vec![bytes.to_vec()];
    }
    assert_eq!((bytes[1], bytes[0]), (1, 1), "TCP over IPv4, with a partial checksum");
    assert!(features & 1 << 11 != 0);
    let (headers, size) = (word(2), word(4));
    let (head, data) = bytes.split_at(12 + headers);
    let count = data.len().div_ceil(size);
    data.chunks(size)
        .enumerate()
        .map(|(n, part)| {
            let mut frame = [head, part].concat();
            frame[1..6].fill(0);
            let ip = 12 + 14;
            let total = (frame.len() - ip) as u16;
            frame[ip + 2..ip + 4].copy_from_slice(&total.to_be_bytes());
            frame[ip + 10..ip + 12].fill(0);
            let mut sum: u32 = frame[ip..ip + 20]
                .chunks(2)
                .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
                .sum();
            sum = (sum & 0xffff) + (sum >> 16);
            sum = (sum & 0xffff) + (sum >> 16);
            frame[ip + 10..ip + 12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            let tcp = ip + 20;
            let sequence = u32::from_be_bytes(frame[tcp + 4..tcp + 8].try_into().unwrap());
            let sequence = sequence.wrapping_add((n * size) as u32);
            frame[tcp + 4..tcp + 8].copy_from_slice(&sequence.to_be_bytes());
            if n + 1 < count {
                frame[tcp + 13] &= !0x9; // FIN and PSH are the last segment's.
            }
            frame
        })
        .collect()
}

impl Registers for Device {
    fn read(&self, at: usize) -> u32 {
        let state = self.0.borrow();
        match at {
            offset::MAGIC => u32::from_le_bytes(*b"virt"),
            offset::VERSION => state.version,
            offset::DEVICE => state.kind,
            offset::DEVICE_FEATURES => (state.offered >> (32 * state.select[0])) as u32,
            offset::QUEUE_SIZE_MAX => state.queue_max,
            offset::STATUS => state.status,
            other => panic!("read of {other:#x}"),
        }
    }

    fn write(&self, at: usize, value: u32) {
        let state = &mut *self.0.borrow_mut();
        let queue = state.select[2] as usize;
        match at {
            offset::DEVICE_FEATURES_SELECT => state.select[0] = value,
            offset::DRIVER_FEATURES_SELECT => state.select[1] = value,
            offset::QUEUE_SELECT => state.select[2] = value,
            offset::DRIVER_FEATURES => state.features |= u64::from(value) << (32 * state.select[1]),
            offset::STATUS => state.status = value,
            offset::QUEUE_SIZE => state.sizes[queue] = value,
            offset::QUEUE_READY => assert_eq!(value, 1),
            at => {
                let table = offset::QUEUE_TABLES
                    .into_iter()
                    .position(|register| register == at & !4)
                    .unwrap_or_else(|| panic!("write of {at:#x}"));
                state.tables[queue][table] |=
                    u64::from(value) << (if at & 4 == 0 { 0 } else { 32 });
            }
        }
    }

    fn configuration(&self, at: usize) -> u8 {
        [2, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0xdc, 0x05][at]
    }
}

struct Pair {
    stacks: [Stack<VirtioNet>; 2],
    devices: [Device; 2],
    now: u64,
}

impl Pair {
    fn new(offered: u64) -> Self {
        let devices = [Device::new(offered), Device::new(offered)];
        let stack = |n: usize, ip| {
            let driver = VirtioNet::new(&devices[n]).unwrap();
            let config = Config { mac: [2, 0, 0, 0, 0, n as u8], ..config(ip, 7) };
            Stack::new(&config, Some(driver), 0)
        };
        Self { stacks: [stack(0, A), stack(1, B)], devices, now: 0 }
    }

    fn step(&mut self) {
        self.now += 50_000;
        for stack in &mut self.stacks {
            stack.poll(self.now);
            stack.device().unwrap().kick(|_, _| ());
        }
        self.devices[0].serve(&self.devices[1]);
        self.devices[1].serve(&self.devices[0]);
    }

    fn transfer(&mut self, data: &[u8]) -> Vec<u8> {
        let [a, b] = &mut self.stacks;
        let listener = b.socket(Kind::Stream);
        b.bind(listener, at(B, 80)).unwrap();
        b.listen(listener, 1).unwrap();
        let client = a.socket(Kind::Stream);
        assert_eq!(a.connect(client, at(B, 80)), Err(Error::InProgress));
        let mut sent = 0;
        let mut server = None;
        let mut received = Vec::new();
        let mut buffer = vec![0; 60_000];
        for _ in 0..200_000 {
            self.step();
            let [a, b] = &mut self.stacks;
            if sent < data.len()
                && let Ok(n) = a.send(client, &data[sent..])
            {
                sent += n;
                if sent == data.len() {
                    a.shut_down(client, Shutdown { read: false, write: true }).unwrap();
                }
            }
            server = server.or_else(|| b.accept(listener).ok().map(|(id, _)| id));
            let Some(server) = server else { continue };
            match b.receive(server, &mut buffer, false) {
                Ok(0) => return received,
                Ok(n) => received.extend_from_slice(&buffer[..n]),
                Err(e) => assert_eq!(e, Error::WouldBlock),
            }
        }
        panic!("{} of {} bytes after {} ms", received.len(), data.len(), self.now / 1_000_000)
    }
}

#[test]
fn bytes_arrive_with_every_set_of_features() {
    let data = noise(700_000);
    for offered in [OFFERED, OFFERED & !(1 << 11), OFFERED & !(1 << 11 | 1), OFFERED & !2, 1 << 32]
    {
        let mut pair = Pair::new(offered);
        assert!(pair.transfer(&data) == data, "{offered:#x}");
        let state = pair.devices[0].0.borrow();
        assert_eq!(state.cut > 0, offered & (1 << 11) != 0, "{offered:#x}");
        assert_eq!(state.partial > 0, offered & 1 != 0, "{offered:#x}");
    }
}

#[test]
fn the_device_is_set_up_as_the_standard_asks() {
    let device = Device::new(OFFERED | 1 << 40 | 1 << 7 | 1 << 15);
    let mut driver = VirtioNet::new(&device).unwrap();
    assert_eq!(driver.mac(), [2, 0, 0, 0, 0, 1]);
    let mut told = Vec::new();
    driver.kick(|queue, wants| told.push((queue, wants)));
    driver.kick(|queue, wants| told.push((queue, wants)));
    assert_eq!(told, [(0, true)], "there are buffers to receive into");
    let state = device.0.borrow();
    assert_eq!(state.status, 15);
    assert_eq!(state.features, OFFERED, "only what the driver knows");
    assert_eq!(state.sizes, [128, 128]);
}

#[test]
fn unusable_devices_are_refused() {
    let with = |change: fn(&mut State)| {
        let device = Device::new(OFFERED);
        change(&mut device.0.borrow_mut());
        VirtioNet::new(&device).err()
    };
    assert_eq!(with(|s| s.kind = 2), Some(DriverError::NotNetwork));
    assert_eq!(with(|s| s.version = 1), Some(DriverError::Legacy));
    assert_eq!(with(|s| s.offered = 3), Some(DriverError::Legacy));
    assert_eq!(with(|s| s.queue_max = 0), Some(DriverError::Queues));
}

#[test]
fn a_device_that_does_not_send_makes_senders_wait() {
    let mut pair = Pair::new(OFFERED);
    let [a, _] = &mut pair.stacks;
    let socket = a.socket(Kind::Datagram);
    let data = noise(1000);
    let to = at(core::net::Ipv4Addr::BROADCAST, 9);
    let mut sent = 0;
    while a.send_to(socket, &data, Some(to)).is_ok() {
        sent += 1;
        a.poll(0);
        assert!(sent < 1000, "it sends without end");
    }
    assert!(sent > 60, "{sent}");
    assert!(!a.device().unwrap().has_room());
    assert!(!a.device().unwrap().has_sent_all());
    assert_eq!(a.poll(7), Some(7), "there is something to be done as soon as there is room");
    pair.step();
    pair.step();
    let [a, _] = &mut pair.stacks;
    assert!(a.device().unwrap().has_sent_all());
    assert_eq!(a.send_to(socket, &data, Some(to)), Ok(1000));
}

#[test]
fn empty_pages_are_those_where_nothing_waits() {
    let mut pair = Pair::new(OFFERED);
    let pages = |stack: &mut Stack<VirtioNet>| {
        let mut pages = Vec::new();
        stack.device().unwrap().empty_pages(|page| pages.push(page));
        assert!(pages.iter().all(|page| page % 4096 == 0));
        pages.len()
    };
    // 128 buffers of half a page, and the frames to be sent.
    assert_eq!(pages(&mut pair.stacks[0]), 64 + 32);
    let socket = pair.stacks[0].socket(Kind::Datagram);
    let to = at(core::net::Ipv4Addr::BROADCAST, 9);
    pair.stacks[0].send_to(socket, b"x", Some(to)).unwrap();
    pair.stacks[0].poll(1);
    assert_eq!(pages(&mut pair.stacks[0]), 64);
    pair.devices[0].serve(&pair.devices[1]);
    pair.devices[1].serve(&pair.devices[0]);
    assert_eq!(pages(&mut pair.stacks[0]), 64 + 32);
    assert_eq!(
        pages(&mut pair.stacks[1]),
        63 + 32,
        "one page holds a frame that was not processed"
    );
    pair.stacks[1].poll(2);
    assert_eq!(pages(&mut pair.stacks[1]), 64 + 32);
}
