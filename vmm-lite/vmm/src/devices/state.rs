//! The state of devices on the bus, as it is captured.

use super::net::NetState;

/// The state of a device on the [`Bus`](super::bus::Bus). Each kind has a section of its own in
/// files and on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceState {
    /// A network device.
    Net(NetState),
}

impl DeviceState {
    /// The pages of guest memory that the device reads and writes while the guest does not run.
    pub fn pages_in_use(&self) -> impl Iterator<Item = usize> {
        match self {
            Self::Net(net) => net.transport.pages(),
        }
    }
}
