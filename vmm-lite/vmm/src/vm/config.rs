//! The configuration of a VM.

use crate::boot::Parameters;

/// A VM to be booted.
#[derive(Clone, Debug)]
pub struct Config {
    /// Size of its memory in bytes.
    pub memory: u64,
    /// Its networks.
    pub nets: Vec<NetConfig>,
    /// The guest's parameters, its name included.
    pub parameters: Parameters,
}

/// A network of a VM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetConfig {
    /// Name of the TAP device.
    pub tap: String,
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
}

/// An Ethernet address for a guest without an assigned one: locally administered, and always the
/// same for the same name and address.
#[must_use]
pub fn mac_for(name: &str, ip: &str) -> [u8; 6] {
    // FNV-1a: it only has to tell names apart.
    let hash =
        name.bytes().chain([0]).chain(ip.bytes()).fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
        });
    let h = hash.to_be_bytes();
    [0x02, h[0] ^ h[5], h[1] ^ h[6], h[2] ^ h[7], h[3], h[4]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_addresses_are_local_and_differ() {
        let a = mac_for("kv", "10.0.0.2/24");
        assert_eq!(a, mac_for("kv", "10.0.0.2/24"));
        assert_ne!(a, mac_for("kv", "10.0.0.3/24"));
        assert_ne!(a, mac_for("kw", "10.0.0.2/24"));
        assert_eq!(a[0] & 3, 2, "unicast, locally administered");
    }
}
