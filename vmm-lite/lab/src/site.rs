//! The usual test bed: two hosts and a client.
//!
//! ```text
//!            switch namespace
//!   ┌────────── br-data 10.0.0.0/24 ──────────┐
//!   │     ┌──── br-mig  10.9.0.0/24 ────┐     │
//!  a:up  a:mig                        b:mig  b:up     client:eth0
//!   │  10.9.0.1                      10.9.0.2 │        10.0.0.100
//!  a:br0 ── tap0 … (guest 10.0.0.2)  b:br0 ── tap0 …
//!  10.0.0.11                         10.0.0.12
//! ```
//! Guests communicate on the data network; moves use the migration network, as is usual in
//! practice.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use crate::{
    error::{Error, Result},
    net::Namespace,
    privilege, skipped,
};

/// Address of the client on the data network.
pub const CLIENT_IP: &str = "10.0.0.100";

/// One host: a namespace with a bridge `br0`, TAPs on it, and an address on the migration network.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its namespace.
    pub ns: Namespace,
    /// Its address on the migration network.
    pub migration_ip: String,
    /// Its address on the data network.
    pub data_ip: String,
    /// The identities on this site, shared by its hosts: see [`crate::vmm::Vmm`].
    pub(crate) identities: Identities,
}

/// Directories of identities, and the lines by which other hosts trust them.
pub(crate) type Identities = Arc<Mutex<Vec<(PathBuf, String)>>>;

impl Host {
    /// Adds a TAP to the host's bridge.
    ///
    /// # Errors
    /// The error of `ip`.
    pub fn tap(&self, name: &str) -> Result<()> {
        self.ns.tap(name, "br0")
    }
}

/// Two hosts, a client, and the switch between them. All of them disappear when the process ends.
#[derive(Clone, Debug)]
pub struct Site {
    /// The hosts; each has `tap0` at the start.
    pub hosts: [Host; 2],
    /// The namespace of the clients.
    pub client: Namespace,
    /// The switch.
    pub switch: Namespace,
}

impl Site {
    /// Builds it for a test that runs VMs in it. `None` after reporting a skip, if this host or
    /// user cannot have it.
    ///
    /// # Panics
    /// If it cannot be built though it should be.
    #[must_use]
    pub fn for_test(test: &str) -> Option<Self> {
        let site = privilege::kvm().and_then(|()| privilege::tun()).and_then(|()| Self::new());
        match site {
            Ok(site) => Some(site),
            Err(e @ (Error::Privilege(_) | Error::NoFile { .. } | Error::Missing { .. })) => {
                skipped(test, e);
                None
            }
            Err(e) => panic!("{e}"),
        }
    }

    /// Builds it.
    ///
    /// # Errors
    /// [`crate::Error::Privilege`] without the right to make namespaces, otherwise the error of
    /// `ip`.
    pub fn new() -> Result<Self> {
        let switch = Namespace::new("switch")?;
        switch.bridge("br-data")?;
        switch.bridge("br-mig")?;
        let identities = Identities::default();
        let host = |name: &str, n: u8| -> Result<Host> {
            let ns = Namespace::new(name)?;
            ns.bridge("br0")?;
            let (up, mig) = (format!("{name}-up"), format!("{name}-mig"));
            switch.veth(&up, &ns, "up")?;
            switch.ip(["link", "set", "dev", &up, "master", "br-data"])?;
            ns.ip(["link", "set", "dev", "up", "master", "br0"])?;
            switch.veth(&mig, &ns, "mig")?;
            switch.ip(["link", "set", "dev", &mig, "master", "br-mig"])?;
            let (data_ip, migration_ip) = (format!("10.0.0.1{n}"), format!("10.9.0.{n}"));
            ns.ip(["addr", "add", &format!("{data_ip}/24"), "dev", "br0"])?;
            ns.ip(["addr", "add", &format!("{migration_ip}/24"), "dev", "mig"])?;
            let host = Host { ns, migration_ip, data_ip, identities: Arc::clone(&identities) };
            host.tap("tap0")?;
            Ok(host)
        };
        let hosts = [host("a", 1)?, host("b", 2)?];
        let client = Namespace::new("client")?;
        switch.veth("c-up", &client, "eth0")?;
        switch.ip(["link", "set", "dev", "c-up", "master", "br-data"])?;
        client.ip(["addr", "add", &format!("{CLIENT_IP}/24"), "dev", "eth0"])?;
        Ok(Self { hosts, client, switch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_and_both_hosts_reach_each_other() {
        let site = match Site::new() {
            Ok(site) => site,
            Err(e @ crate::Error::Privilege(_)) => return crate::skipped("site", e),
            Err(e) => panic!("{e}"),
        };
        let listener =
            site.hosts[1].ns.enter(|| std::net::TcpListener::bind("10.0.0.12:7").unwrap()).unwrap();
        let answer = std::thread::spawn(move || listener.accept().unwrap().1);
        let from = site
            .client
            .enter(|| std::net::TcpStream::connect("10.0.0.12:7").unwrap().local_addr().unwrap())
            .unwrap();
        assert_eq!(answer.join().unwrap(), from);
        let mig =
            site.hosts[0].ns.enter(|| std::net::UdpSocket::bind("10.9.0.1:9").is_ok()).unwrap();
        assert!(mig);
    }
}
