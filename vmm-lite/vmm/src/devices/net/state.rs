//! The state of a network device, as it is captured.

use crate::devices::virtio::{TransportError, TransportState};
use serde::{Deserialize, Serialize};

/// Why a network device cannot continue from a state.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum StateError {
    /// Its registers or queues are invalid.
    #[error("network device: {0}")]
    Transport(#[from] TransportError),
    /// The guest's longest packets do not fit the TAP device.
    #[error(transparent)]
    Mtu(#[from] MtuTooSmall),
}

/// A TAP device whose packets are shorter than the guest's.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "the guest's packets have up to {guest} bytes (MTU), and those of TAP device {device} have \
     {tap}: allow for longer ones with `ip link set {device} mtu {guest}`, on its bridge too, and \
     try again"
)]
pub struct MtuTooSmall {
    /// The guest's MTU.
    pub guest: u16,
    /// The device's MTU.
    pub tap: u16,
    /// The device.
    pub device: String,
}

/// The device's configuration and registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetState {
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// The MTU that it was given.
    pub mtu: u16,
    /// Registers, receive queue and transmit queue.
    pub transport: TransportState<2>,
}
