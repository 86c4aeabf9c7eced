//! Counts the packets that a device sends.

use smoltcp::{
    phy::{Device, DeviceCapabilities, PacketMeta, TxToken},
    time::Instant,
};

/// Counts the IP packets that `device` sends. An ARP request is not one: it means that a socket has
/// something to send and its neighbor's address is missing.
pub(super) struct Counting<'d, D> {
    pub(super) device: &'d mut D,
    pub(super) packets: usize,
}

impl<D: Device> Device for Counting<'_, D> {
    type RxToken<'a>
        = D::RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = CountingToken<'a, D::TxToken<'a>>
    where
        Self: 'a;

    fn receive(&mut self, now: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let (rx, token) = self.device.receive(now)?;
        Some((rx, CountingToken { token, packets: &mut self.packets }))
    }

    fn transmit(&mut self, now: Instant) -> Option<Self::TxToken<'_>> {
        let token = self.device.transmit(now)?;
        Some(CountingToken { token, packets: &mut self.packets })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.device.capabilities()
    }
}

pub(super) struct CountingToken<'a, T> {
    token: T,
    packets: &'a mut usize,
}

/// Ethernet header and an ARP packet.
const ARP_FRAME: usize = 42;

impl<T: TxToken> TxToken for CountingToken<'_, T> {
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
