//! What a host must know of a VM before its state arrives.

use crate::boot::{Cidr, OwnClock};
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
    /// Its networks, in the order of their devices.
    pub nets: Vec<NetIdentity>,
    /// Clocks and random numbers of the CPU that its program reads by itself. Encoded apart from
    /// the other fields, behind what payloads had before it; unknown where it is missing.
    #[serde(skip)]
    pub own_clock: OwnClock,
}

/// The addresses of a VM in a network.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetIdentity {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address, if one was assigned.
    pub ip: Option<Cidr>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As it was while a VM had at most one network.
    #[derive(Serialize)]
    struct OldIdentity {
        name: String,
        memory_size: u64,
        interface_version: u32,
        net: Option<NetIdentity>,
    }

    #[test]
    fn a_list_of_at_most_one_network_has_the_bytes_of_an_option() {
        let with_ip = NetIdentity { mac: [2; 6], ip: "10.0.0.2/24".parse().ok() };
        let without = NetIdentity { mac: [6; 6], ip: None };
        for net in [None, Some(without), Some(with_ip)] {
            let (name, memory_size, interface_version) = ("kv".to_owned(), 16 << 20, 2);
            let nets = net.clone().into_iter().collect();
            let new = Identity {
                name: name.clone(),
                memory_size,
                interface_version,
                nets,
                own_clock: OwnClock::default(),
            };
            let old = OldIdentity { name, memory_size, interface_version, net };
            let bytes = postcard::to_stdvec(&old).unwrap();
            assert_eq!(postcard::to_stdvec(&new).unwrap(), bytes);
            assert_eq!(postcard::from_bytes(&bytes), Ok(new));
        }
    }
}
