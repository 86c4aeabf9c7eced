//! What a host must know of a machine before its state comes.

use crate::boot::Cidr;
use serde::{Deserialize, Serialize};

/// Who a machine is. It stays the same for as long as it lives, wherever it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Its name on the control socket and to the guest.
    pub name: String,
    /// Size of its memory in bytes.
    pub memory_size: u64,
    /// The version of the interface its image was built for.
    pub interface_version: u32,
    /// Its network, if it has one.
    pub net: Option<NetIdentity>,
}

/// Who it is on the network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetIdentity {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address, if it was given one.
    pub ip: Option<Cidr>,
}
