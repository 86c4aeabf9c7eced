//! What a host must know of a VM before its state arrives.

use crate::boot::Cidr;
use serde::{Deserialize, Serialize};

/// A VM's manifest. It never changes, wherever the VM runs.
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

/// Its network addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetIdentity {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address, if one was assigned.
    pub ip: Option<Cidr>,
}
