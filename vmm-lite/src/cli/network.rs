//! Network options for one or several copies of a VM.

use super::{
    arguments,
    neighbours::{self, Neighbour},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
};
use vmm::{
    boot::Cidr,
    snapshot::start::Change,
    vm::{Identity, mac_for},
};

/// Network options.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Network {
    /// TAP device, which must exist; for several VMs repeat it, or use %d for the VM's number
    #[arg(long, value_name = "DEVICE")]
    pub tap: Vec<String>,

    /// Address and prefix length; for several VMs the first one's, and the others count up
    /// [default: unchanged]
    #[arg(long, value_name = "ADDRESS/LENGTH")]
    pub ip: Option<Cidr>,

    /// Let every copy keep the VM's address: for TAP devices on separate networks
    #[arg(long, conflicts_with = "ip")]
    pub keep_ip: bool,

    /// Where packets to other networks are sent [default: unchanged]
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    pub gateway: Option<IpAddr>,

    /// Name server; may be repeated [default: unchanged]
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    pub dns: Vec<IpAddr>,

    /// Ethernet address; for several VMs the first one's [default: made from name and address]
    #[arg(long, value_name = "ADDRESS", value_parser = arguments::mac)]
    pub mac: Option<[u8; 6]>,
}

/// Name and connection of a copy.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Place {
    /// What differs from the original.
    pub change: Change,
    /// Its TAP device.
    pub tap: Option<String>,
}

/// The copies to make.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The name of a single copy; otherwise the prefix of their names.
    pub name: &'a str,
    /// The first number and the count, if names and TAP devices are numbered.
    pub numbers: Option<(u32, u32)>,
    /// Whether the original keeps running.
    pub beside: bool,
}

impl Network {
    /// Applies the options to copies of a VM.
    ///
    /// # Errors
    /// A message for the user, if two copies would conflict or something is missing.
    pub fn places(&self, of: &Identity, wanted: Wanted<'_>) -> Result<Vec<Place>, String> {
        let (first, count) = wanted.numbers.unwrap_or((0, 1));
        let alone = wanted.numbers.is_none() && !wanted.beside;
        if of.nets.is_empty() {
            let none = self.tap.is_empty() && self.ip.is_none() && self.mac.is_none();
            if !none {
                return Err("the VM has no network: leave the network options out".into());
            }
        }
        let taps = if of.nets.is_empty() { Vec::new() } else { self.taps(first, count)? };
        let had = of.nets.first().and_then(|net| net.ip);
        if had.is_some() && self.ip.is_none() && !self.keep_ip && !alone {
            return Err(format!(
                "give the copies addresses with --ip, as {} is the VM's; or --keep-ip, for \
                 networks of their own",
                had.map(|ip| ip.to_string()).unwrap_or_default()
            ));
        }
        (0..count)
            .map(|n| {
                let name = match wanted.numbers {
                    Some(_) => format!("{}-{}", wanted.name, u64::from(first) + u64::from(n)),
                    None => wanted.name.to_owned(),
                };
                let ip = self.ip.map(|ip| after(ip, n)).transpose()?;
                let mac = match (of.nets.first(), self.mac) {
                    (None, _) => None,
                    (Some(_), Some(mac)) => Some(mac_after(mac, n)?),
                    (Some(net), None) if alone && ip.is_none() && name == of.name => Some(net.mac),
                    (Some(_), None) => {
                        let ip = ip.or(had).map(|ip| ip.to_string()).unwrap_or_default();
                        Some(mac_for(&name, &ip))
                    }
                };
                let (gateway, dns) = (self.gateway, self.dns.clone());
                let change = Change { name: Some(name), mac, ip, gateway, dns };
                Ok(Place { change, tap: taps.get(n as usize).cloned() })
            })
            .collect()
    }

    /// Checks that no other VM here has an address of `places`: an error if the user did not choose
    /// the address, otherwise a warning.
    ///
    /// # Errors
    /// A message for the user.
    pub fn check_neighbours(&self, of: &Identity, places: &[Place]) -> Result<(), String> {
        let had = of.nets.first().and_then(|net| net.ip);
        let ip = |place: &Place| Some(place.change.ip.or(had)?.address);
        let addresses: Vec<_> = places.iter().filter_map(ip).collect();
        let own = places.first().and_then(|place| place.change.name.as_deref()).unwrap_or(&of.name);
        if self.ip.is_some() {
            neighbours::warn(own, &addresses);
        } else if !self.keep_ip
            && let Some(Neighbour { name, ip }) = neighbours::find(own, &addresses)
        {
            return Err(format!(
                "{name} runs here with the address {ip}, which this VM had: give it another with \
                 --ip, or say --keep-ip if its TAP device is on another network"
            ));
        }
        Ok(())
    }

    fn taps(&self, first: u32, count: u32) -> Result<Vec<String>, String> {
        let taps: Vec<String> = match &self.tap[..] {
            [pattern] if pattern.contains("%d") => (0..count)
                .map(|n| pattern.replace("%d", &(u64::from(first) + u64::from(n)).to_string()))
                .collect(),
            taps => taps.to_vec(),
        };
        if taps.len() != count as usize {
            return Err(format!(
                "the VM has a network, and each copy needs a TAP device of its own: name {count} \
                 with --tap, or one pattern like --tap tap%d; {} were named",
                taps.len()
            ));
        }
        let mut seen = HashSet::new();
        match taps.iter().find(|tap| !seen.insert(*tap)) {
            Some(twice) => Err(format!("TAP device {twice} can connect one VM only")),
            None => Ok(taps),
        }
    }
}

/// The `n`-th address after `ip` in its network.
fn after(ip: Cidr, n: u32) -> Result<Cidr, String> {
    let IpAddr::V4(address) = ip.address else {
        return Err(format!("{ip}: guests know IPv4 only"));
    };
    let mask = u32::MAX.checked_shl(32 - u32::from(ip.prefix)).unwrap_or(0);
    let next = address.to_bits().checked_add(n).filter(|next| {
        let host = next & !mask;
        next & mask == address.to_bits() & mask && (n == 0 || host != !mask)
    });
    match next {
        Some(next) => Ok(Cidr { address: Ipv4Addr::from_bits(next).into(), ..ip }),
        None => Err(format!("there are not that many addresses from {ip} on in its network")),
    }
}

fn mac_after(mac: [u8; 6], n: u32) -> Result<[u8; 6], String> {
    let mut long = [0; 8];
    long[2..].copy_from_slice(&mac);
    let next = (u64::from_be_bytes(long) + u64::from(n)).to_be_bytes();
    if next[2..5] != mac[..3] {
        return Err(
            "there are not that many Ethernet addresses from the first on of its maker".into()
        );
    }
    let mut out = [0; 6];
    out.copy_from_slice(&next[2..]);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm::vm::NetIdentity;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xff];

    fn identity(ip: Option<&str>) -> Identity {
        Identity {
            name: "kv".into(),
            memory_size: 16 << 20,
            interface_version: 2,
            nets: ip.map(|ip| NetIdentity { mac: MAC, ip: ip.parse().ok() }).into_iter().collect(),
            own_clock: Default::default(),
        }
    }

    fn wanted(count: Option<u32>) -> Wanted<'static> {
        Wanted { name: "kv", numbers: count.map(|n| (1, n)), beside: false }
    }

    fn args(taps: &[&str], ip: Option<&str>) -> Network {
        Network {
            tap: taps.iter().map(|t| (*t).to_owned()).collect(),
            ip: ip.map(|ip| ip.parse().unwrap()),
            ..Network::default()
        }
    }

    #[test]
    fn a_restored_vm_keeps_its_name_and_addresses() {
        let vm = identity(Some("10.0.0.2/24"));
        let places = args(&["tap0"], None).places(&vm, wanted(None)).unwrap();
        assert_eq!(places[0].change.mac, Some(MAC));
        assert_eq!((places[0].change.ip, places[0].tap.as_deref()), (None, Some("tap0")));
        let other = Wanted { name: "kw", ..wanted(None) };
        let places = args(&["tap0"], None).places(&vm, other).unwrap();
        assert_ne!(places[0].change.mac, Some(MAC), "by another name it is another");
    }

    #[test]
    fn several_copies_differ_in_name_and_addresses() {
        let vm = identity(Some("10.0.0.2/24"));
        let places = args(&["t%d"], Some("10.0.0.9/24")).places(&vm, wanted(Some(3))).unwrap();
        let of = |f: fn(&Place) -> String| places.iter().map(f).collect::<Vec<_>>();
        assert_eq!(of(|p| p.change.name.clone().unwrap()), ["kv-1", "kv-2", "kv-3"]);
        assert_eq!(of(|p| p.tap.clone().unwrap()), ["t1", "t2", "t3"]);
        assert_eq!(
            of(|p| p.change.ip.unwrap().to_string()),
            ["10.0.0.9/24", "10.0.0.10/24", "10.0.0.11/24"]
        );
        let macs: HashSet<_> = places.iter().map(|p| p.change.mac).collect();
        assert_eq!(macs.len(), 3);
        let fixed = Network { mac: Some(MAC), ..args(&["t%d"], Some("10.0.0.9/24")) };
        let places = fixed.places(&vm, wanted(Some(2))).unwrap();
        assert_eq!(places[1].change.mac, Some([2, 0, 0, 0, 1, 0]));
    }

    #[test]
    fn conflicting_copies_are_refused() {
        let vm = identity(Some("10.0.0.2/24"));
        let said = |args: Network, count| args.places(&vm, wanted(count)).unwrap_err();
        assert!(said(args(&[], None), None).contains("name 1 with --tap"));
        assert!(
            said(args(&["a", "a"], Some("10.0.0.3/24")), Some(2)).contains("a can connect one")
        );
        assert!(said(args(&["a"], Some("10.0.0.3/24")), Some(2)).contains("1 were named"));
        assert!(said(args(&["a", "b"], None), Some(2)).contains("--keep-ip"));
        assert!(said(args(&["t%d"], Some("10.0.0.250/24")), Some(6)).contains("not that many"));
        let keep = Network { keep_ip: true, ..args(&["a", "b"], None) };
        assert_eq!(keep.places(&vm, wanted(Some(2))).unwrap().len(), 2);
        let without = identity(None);
        assert!(args(&["a"], None).places(&without, wanted(None)).is_err());
        assert_eq!(args(&[], None).places(&without, wanted(Some(7))).unwrap().len(), 7);
    }
}
