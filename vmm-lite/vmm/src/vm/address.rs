//! A guest's network addresses, and how it is told new ones.

use std::{net::Ipv4Addr, sync::atomic::Ordering::SeqCst};
use vmm_lite_interface::control::NetAddress;

/// A guest's addresses. A missing one leaves the guest's unchanged.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its address and the length of its network's prefix.
    pub ip: Option<(Ipv4Addr, u8)>,
    /// Its gateway to other networks.
    pub gateway: Option<Ipv4Addr>,
    /// Its name servers; only the first few fit. Empty: not given.
    pub dns: Vec<Ipv4Addr>,
}

impl Address {
    /// Writes them to the control page for the guest. The caller marks the page.
    pub(super) fn publish(&self, to: &NetAddress) {
        let mut mac = [0; 8];
        mac[..6].copy_from_slice(&self.mac);
        to.mac.store(u64::from_le_bytes(mac), SeqCst);
        let mut given = 0;
        if let Some((ip, prefix)) = self.ip {
            given |= NetAddress::IP;
            to.ip.store(ip.to_bits(), SeqCst);
            to.prefix.store(prefix.into(), SeqCst);
        }
        if let Some(gateway) = self.gateway {
            given |= NetAddress::GATEWAY;
            to.gateway.store(gateway.to_bits(), SeqCst);
        }
        if !self.dns.is_empty() {
            given |= NetAddress::DNS;
            let count = self.dns.len().min(to.dns.len());
            to.dns_len.store(count as u32, SeqCst);
            to.dns.iter().zip(&self.dns).for_each(|(to, ip)| to.store(ip.to_bits(), SeqCst));
        }
        to.given.store(given, SeqCst);
        to.sequence.fetch_add(1, SeqCst);
    }
}
