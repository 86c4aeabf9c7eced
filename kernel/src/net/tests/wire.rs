//! A wire between two stacks that loses, doubles, delays and reorders frames, always the same way
//! for the same seed.

use crate::drivers::{Frame, NetDevice};
use crate::entropy::Epoch;
use crate::net::{
    Error, SocketId,
    calls::Kind,
    stack::{Config, Stack},
};
use alloc::{collections::VecDeque, rc::Rc, vec, vec::Vec};
use core::{
    cell::RefCell,
    net::{Ipv4Addr, SocketAddrV4},
};
use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
    wire::{Ipv4Packet, TcpPacket},
};

/// What a wire does to frames, in percent of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub lose: u8,
    pub double: u8,
    pub delay: u8,
    pub change: u8,
}

#[derive(Debug)]
struct Direction {
    under_way: VecDeque<(u64, Vec<u8>)>,
    faults: Faults,
    random: u64,
    now: u64,
    room: usize,
    frames: usize,
}

/// How long a frame takes, and how much longer one that is delayed.
const LATENCY: u64 = 100_000;
const DELAY: u64 = 3_000_000;

impl Direction {
    fn new(faults: Faults, seed: u64, room: usize) -> Rc<RefCell<Self>> {
        let random = seed;
        let under_way = VecDeque::new();
        Rc::new(RefCell::new(Self { under_way, faults, random, now: 0, room, frames: 0 }))
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        x % 100 < u64::from(percent)
    }

    fn put(&mut self, mut frame: Vec<u8>) {
        self.frames += 1;
        let faults = self.faults;
        if self.chance(faults.lose) {
            return;
        }
        // What only Ethernet's own checksum protects stays: headers, and ARP.
        if self.chance(faults.change) && frame[12..14] == [0x08, 0x00] {
            let at = 14 + (self.random >> 32) as usize % (frame.len() - 14);
            frame[at] ^= 0x10;
        }
        if self.chance(faults.double) {
            self.under_way.push_back((self.now + LATENCY, frame.clone()));
        }
        let late = if self.chance(faults.delay) { DELAY } else { 0 };
        let at = self.now + LATENCY + late;
        let place = self.under_way.partition_point(|(other, _)| *other <= at);
        self.under_way.insert(place, (at, frame));
    }

    fn arrived(&self) -> Option<&Vec<u8>> {
        self.under_way.front().filter(|(at, _)| *at <= self.now).map(|(_, frame)| frame)
    }
}

/// One end of a wire.
#[derive(Debug)]
pub struct End {
    from: Rc<RefCell<Direction>>,
    to: Rc<RefCell<Direction>>,
    next: Vec<u8>,
    mtu: usize,
}

impl NetDevice for End {
    fn peek(&mut self) -> Option<Frame<'_>> {
        self.next.clone_from(self.from.borrow().arrived()?);
        Some(Frame { bytes: &self.next, checksum_good: false })
    }

    fn discard(&mut self) {
        self.from.borrow_mut().under_way.pop_front();
    }

    fn has_room(&mut self) -> bool {
        let to = self.to.borrow();
        to.under_way.len() < to.room
    }
}

impl Device for End {
    type RxToken<'a> = SliceToken<'a>;
    type TxToken<'a> = Room;

    fn receive(&mut self, _: Instant) -> Option<(SliceToken<'_>, Room)> {
        if !self.has_room() {
            return None;
        }
        self.next.clone_from(self.from.borrow().arrived()?);
        self.discard();
        Some((SliceToken(&self.next), Room(Rc::clone(&self.to))))
    }

    fn transmit(&mut self, _: Instant) -> Option<Room> {
        self.has_room().then(|| Room(Rc::clone(&self.to)))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + 14;
        capabilities
    }
}

/// A frame that has arrived.
pub struct SliceToken<'a>(&'a [u8]);

impl RxToken for SliceToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub struct Room(Rc<RefCell<Direction>>);

impl TxToken for Room {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.borrow_mut().put(frame);
        result
    }
}

pub const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

pub fn at(ip: Ipv4Addr, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(ip, port)
}

/// Two hosts, the wire between them, and the clock of both.
pub struct TestBed {
    pub a: Stack<End>,
    pub b: Stack<End>,
    ways: [Rc<RefCell<Direction>>; 2],
    pub now: u64,
}

/// Not random, and the same in each test's thread: what tests need.
pub fn random(to: &mut [u8]) {
    use chacha20::{
        ChaCha20Rng,
        rand_core::{Rng, SeedableRng},
    };
    std::thread_local! {
        static STREAM: RefCell<ChaCha20Rng> = RefCell::new(ChaCha20Rng::from_seed([7; 32]));
    }
    STREAM.with_borrow_mut(|stream| stream.fill_bytes(to));
}

pub fn config(ip: Ipv4Addr, seed: u64) -> Config {
    let mac = [2, 0, 0, 0, 0, ip.octets()[3]];
    let has_room = |_| true;
    let (buffers, epoch) = (8 << 20, Epoch::default);
    Config { ip: Some((ip, 24)), gateway: None, mac, seed, random, epoch, buffers, has_room }
}

impl TestBed {
    pub fn new(faults: Faults, seed: u64) -> Self {
        Self::with_room(faults, seed, 256)
    }

    /// The wire holds `room` frames a direction.
    pub fn with_room(faults: Faults, seed: u64, room: usize) -> Self {
        let there = Direction::new(faults, seed, room);
        let back = Direction::new(faults, seed.rotate_left(17) ^ 0x5555, room);
        let end = |from: &Rc<RefCell<Direction>>, to: &Rc<RefCell<Direction>>| End {
            from: Rc::clone(from),
            to: Rc::clone(to),
            next: Vec::new(),
            mtu: 1500,
        };
        Self {
            a: Stack::new(&config(A, seed), Some(end(&back, &there)), 0),
            b: Stack::new(&config(B, !seed), Some(end(&there, &back)), 0),
            ways: [there, back],
            now: 0,
        }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        for way in &self.ways {
            way.borrow_mut().faults = faults;
        }
    }

    pub fn frames(&self) -> usize {
        self.ways.iter().map(|way| way.borrow().frames).sum()
    }

    /// The TCP segments on the wire that ask for a connection or grant one: from where, to where,
    /// and with which sequence number they begin.
    pub fn openings(&self) -> Vec<(SocketAddrV4, SocketAddrV4, u32)> {
        let opening = |frame: &[u8]| {
            let ip = Ipv4Packet::new_checked(frame.get(14..)?).ok()?;
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            let (from, to) = (at(ip.src_addr(), tcp.src_port()), at(ip.dst_addr(), tcp.dst_port()));
            tcp.syn().then(|| (from, to, tcp.seq_number().0.cast_unsigned()))
        };
        let ways = self.ways.iter().map(|way| way.borrow());
        ways.flat_map(|way| {
            way.under_way.iter().filter_map(|(_, f)| opening(f)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// The frame that has been on the wire from `a` to `b` for longest.
    pub fn oldest_frame(&self) -> Option<Vec<u8>> {
        self.ways[0].borrow().under_way.front().map(|(_, frame)| frame.clone())
    }

    /// Has the frame that has been on the wire from `a` to `b` for longest go to another address.
    pub fn readdress_oldest_frame(&mut self, to: Ipv4Addr) {
        let mut way = self.ways[0].borrow_mut();
        let (_, frame) = way.under_way.front_mut().expect("a frame is under way");
        let mut ip = Ipv4Packet::new_checked(&mut frame[14..]).expect("an IP packet");
        let from = ip.src_addr();
        ip.set_dst_addr(to);
        ip.fill_checksum();
        let mut tcp = TcpPacket::new_checked(ip.payload_mut()).expect("a TCP segment");
        tcp.fill_checksum(&from.into(), &to.into());
    }

    /// Lets both do what they can, and time go on to when something happens next, by 10 ms at most.
    pub fn step(&mut self) {
        let mut next = self.now + 10_000_000;
        for due in [self.a.poll(self.now), self.b.poll(self.now)].into_iter().flatten() {
            next = next.min(due);
        }
        for way in &self.ways {
            if let Some((at, _)) = way.borrow().under_way.front() {
                next = next.min(*at);
            }
        }
        self.now = next.max(self.now + 1000);
        for way in &self.ways {
            way.borrow_mut().now = self.now;
        }
    }

    /// Goes on until `done` returns something, for ten minutes of the test bed's time at most.
    #[track_caller]
    pub fn until<R>(&mut self, mut done: impl FnMut(&mut Self) -> Option<R>) -> R {
        self.within(600_000, &mut done).expect("in ten minutes")
    }

    pub fn within<R>(
        &mut self,
        ms: u64,
        mut done: impl FnMut(&mut Self) -> Option<R>,
    ) -> Option<R> {
        let end = self.now + ms * 1_000_000;
        while self.now < end {
            if let Some(result) = done(self) {
                return Some(result);
            }
            self.step();
        }
        None
    }

    pub fn pass(&mut self, ms: u64) {
        let never: Option<()> = self.within(ms, |_| None);
        assert_eq!(never, None);
    }

    /// A connection from `a` to `b`'s port: its two ends.
    pub fn connected(&mut self, port: u16) -> (SocketId, SocketId) {
        let listener = self.b.socket(Kind::Stream);
        self.b.set_options(listener, |o| o.reuse_address = true);
        self.b.bind(listener, at(Ipv4Addr::UNSPECIFIED, port)).unwrap();
        self.b.listen(listener, 16).unwrap();
        let client = self.a.socket(Kind::Stream);
        assert_eq!(self.a.connect(client, at(B, port)), Err(Error::InProgress));
        let (server, _) = self.until(|bed| {
            // A wire that loses three questions in a row makes a neighbor unreachable.
            if bed.a.connect_result(client) == Err(Error::HostUnreachable) {
                assert_eq!(bed.a.connect(client, at(B, port)), Err(Error::InProgress));
            }
            bed.b.accept(listener).ok()
        });
        self.until(|bed| bed.a.connect_result(client).ok());
        self.b.close(listener);
        (client, server)
    }
}

/// Bytes in which a lost or doubled one shows.
pub fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
