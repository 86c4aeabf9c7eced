//! What the stack asks of a network device, beyond what smoltcp asks.

use smoltcp::{
    phy::{Device, DeviceCapabilities, PacketMeta, TxToken},
    time::Instant,
};

/// The next frame of a device, not taken yet.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The frame, from its Ethernet header, or from its IP header on a link without Ethernet.
    pub bytes: &'a [u8],
    /// Whether its TCP or UDP checksum needs no look: the device has checked it, or it never left this machine.
    pub checksum_good: bool,
}

/// A device that shows the next frame before it is taken, so that the one socket it is for can be found first.
pub trait NetDevice: Device {
    /// The frame that the next [`receive`](Device::receive) takes.
    fn peek(&mut self) -> Option<Frame<'_>>;
    /// Drops that frame.
    fn discard(&mut self);
    /// Whether there is room for a frame of any length to be sent.
    fn has_room(&mut self) -> bool;
}

/// Counts the IP packets that go out by it: one of a socket, or only a question for its neighbor.
pub(super) struct Watch<'d, D> {
    pub(super) device: &'d mut D,
    pub(super) packets: usize,
}

impl<D: Device> Device for Watch<'_, D> {
    type RxToken<'a>
        = D::RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = WatchToken<'a, D::TxToken<'a>>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (rx, token) = self.device.receive(now)?;
        Some((rx, WatchToken { token, packets: &mut self.packets }))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        let token = self.device.transmit(now)?;
        Some(WatchToken { token, packets: &mut self.packets })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.capabilities()
    }
}

pub(super) struct WatchToken<'a, T> {
    token: T,
    packets: &'a mut usize,
}

/// Ethernet header and an ARP packet.
const ARP_FRAME: usize = 42;

impl<T: TxToken> TxToken for WatchToken<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        self.token.consume(len, |bytes| {
            let result = f(bytes);
            if !(len == ARP_FRAME && bytes[12..14] == [0x08, 0x06]) {
                *self.packets += 1;
            }
            result
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.token.set_meta(meta);
    }
}
