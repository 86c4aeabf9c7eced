//! A VM's network devices: how they are made, and what other threads use of them.

use super::{Error, NetIdentity};
use crate::devices::{
    bus::Bus,
    net::{Counters, Forwarded, Net, Own, tap::Tap},
};
use std::sync::Arc;
use vmm_lite_interface::layout::NET_MMIO;

/// What threads other than the vCPU's use of a network device.
#[derive(Debug)]
pub(super) struct NetPort {
    pub counters: Arc<Counters>,
    /// Where packets are added that the source of a move forwards.
    pub forwarded: Arc<Forwarded>,
    /// The host's end: to announce the guest, to ask about the link, and to read what arrives after
    /// the guest has left.
    pub tap: Tap,
}

/// Puts a device on the bus for each of a VM's networks, with one of `taps`.
///
/// # Errors
/// [`Error::Network`] if the guest cannot find that many; the TAP's error.
pub(super) fn attach(
    nets: &[NetIdentity],
    taps: Vec<Tap>,
    bus: &mut Bus,
) -> Result<Vec<NetPort>, Error> {
    if nets.len() > 1 {
        return Err(Error::Network(
            "the VM has several network devices, and the control page has room for the address of \
             one",
        ));
    }
    nets.iter()
        .zip(taps)
        .map(|(net, tap)| {
            let (mtu, up) = tap.mtu_and_up()?;
            if !up {
                let name = tap.name();
                tracing::warn!("TAP device {name} is down; set it up with `ip link set {name} up`");
            }
            let mut device = Net::new(tap.try_clone()?, net.mac, mtu);
            device.restrict_to(Some(Own::new(net.mac, net.ip.map(|ip| ip.address))));
            let (counters, forwarded) = (device.counters(), device.forwarded());
            bus.attach(NET_MMIO, device);
            Ok(NetPort { counters, forwarded, tap })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_networks_than_a_guest_can_find_are_refused() {
        let net = NetIdentity { mac: [2; 6], ip: None };
        let refused = attach(&[net.clone(), net], Vec::new(), &mut Bus::default()).unwrap_err();
        let said = refused.to_string();
        assert!(said.contains("several network devices"), "{said}");
    }
}
