//! Addresses that running VMs of this user already have.

use api::{Client, RuntimeDir, verb::Stats};
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

/// A VM that takes longer to answer is skipped; so are the others once all together have taken this
/// long.
const TIMEOUT: Duration = Duration::from_millis(500);

/// A VM that has an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// Its name.
    pub name: String,
    /// The address.
    pub ip: IpAddr,
}

/// The first running VM here with one of `addresses` whose name is not `own`.
#[must_use]
pub fn find(own: &str, addresses: &[IpAddr]) -> Option<Neighbour> {
    if addresses.is_empty() {
        return None;
    }
    let until = Instant::now() + TIMEOUT;
    let dir = RuntimeDir::open().ok()?;
    let names = dir.names().ok()?.into_iter().filter(|name| name != own);
    names.take_while(|_| Instant::now() < until).find_map(|name| {
        let mut client = Client::connect_in(&dir, &name).ok()?;
        client.set_timeout(TIMEOUT).ok()?;
        let stats = client.call(Stats::default()).ok()?;
        let ip = stats.net?.ip?.split('/').next()?.parse().ok()?;
        addresses.contains(&ip).then_some(Neighbour { name, ip })
    })
}

/// Warns if a VM here has one of the `addresses` that the user has chosen.
pub fn warn(own: &str, addresses: &[IpAddr]) {
    if let Some(Neighbour { name, ip }) = find(own, addresses) {
        eprintln!(
            "vmm-lite: warning: {name} runs here with the address {ip} too: on one network, \
             packets for \
             it reach either"
        );
    }
}
