//! The device by which the guest reaches itself: 127.0.0.0/8 and its own address.

use crate::drivers::{Frame, NetDevice};
use alloc::{collections::VecDeque, vec, vec::Vec};
use smoltcp::{
    phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken},
    time::Instant,
};

/// Longest packet: any that IPv4 can name, so that nothing is ever fragmented here.
const MTU: usize = 65_535;
/// Bytes under way at which senders have to wait for receivers.
const UNDER_WAY_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Loopback {
    packets: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Loopback {
    fn take(&mut self) -> Option<Vec<u8>> {
        let packet = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }
}

impl NetDevice for Loopback {
    fn peek(&mut self) -> Option<Frame<'_>> {
        Some(Frame { bytes: self.packets.front()?, checksum_good: true })
    }

    fn discard(&mut self) {
        self.take();
    }

    fn has_room(&mut self) -> bool {
        self.bytes < UNDER_WAY_MAX
    }
}

impl Device for Loopback {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received, Sent<'_>)> {
        // A packet may always be answered: what comes out was just taken in.
        Some((Received(self.take()?), Sent(self)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        self.has_room().then_some(Sent(self))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = MTU;
        capabilities.checksum = ChecksumCapabilities::ignored();
        capabilities
    }
}

/// A packet that arrived.
pub struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Room for a packet.
pub struct Sent<'a>(&'a mut Loopback);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let result = f(&mut packet);
        self.0.bytes += len;
        self.0.packets.push_back(packet);
        result
    }
}
