//! What the network stack asks of a network device, beyond what smoltcp asks.

use smoltcp::phy::Device;

/// The next frame of a device, not taken yet.
#[derive(Debug)]
pub struct Frame<'a> {
    /// The frame, from its Ethernet header, or from its IP header on a link without Ethernet.
    pub bytes: &'a [u8],
    /// Whether its TCP or UDP checksum needs no check: the device has checked it, or the frame
    /// never left this guest.
    pub checksum_good: bool,
}

/// A device that shows the next frame before it is taken, so that the one socket that it is for
/// can be found first.
pub trait NetDevice: Device {
    /// The frame that the next [`receive`](Device::receive) takes.
    fn peek(&mut self) -> Option<Frame<'_>>;
    /// Drops that frame.
    fn discard(&mut self);
    /// Whether there is room for a frame of any length to be sent.
    fn has_room(&mut self) -> bool;
}
