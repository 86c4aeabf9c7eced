//! Names of hosts and addresses, as std resolves and parses them.

use crate::check::{Outcome, failed};
use crate::{checks, ensure, ensure_eq};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

checks!["names": addresses_need_no_lookup, localhost, unknown_name, parsing];

fn addresses_need_no_lookup() -> Outcome {
    let found: Vec<SocketAddr> = ("192.0.2.7", 99).to_socket_addrs()?.collect();
    ensure_eq!(found, [SocketAddr::from(([192, 0, 2, 7], 99))]);
    let found: Vec<SocketAddr> = "127.0.0.1:80".to_socket_addrs()?.collect();
    ensure_eq!(found, [SocketAddr::from(([127, 0, 0, 1], 80))]);
    Ok(())
}

fn localhost() -> Outcome {
    let found: Vec<SocketAddr> = "localhost:80".to_socket_addrs()?.collect();
    ensure!(found.contains(&SocketAddr::from(([127, 0, 0, 1], 80))), "localhost is {found:?}");
    ensure!(found.iter().all(|a| a.ip().is_loopback() && a.port() == 80), "localhost is {found:?}");
    Ok(())
}

fn unknown_name() -> Outcome {
    // No resolver may know this name (RFC 6761); an unreachable resolver is an error too.
    ensure!(
        "no-such-host.invalid:80".to_socket_addrs().is_err(),
        "a name that cannot be was found"
    );
    ensure!("no port".to_socket_addrs().is_err(), "an address without a port was taken");
    Ok(())
}

fn parsing() -> Outcome {
    ensure_eq!("10.0.0.1".parse::<Ipv4Addr>()?.octets(), [10, 0, 0, 1]);
    ensure!("10.0.0.256".parse::<Ipv4Addr>().is_err(), "10.0.0.256 passed");
    let v6: Ipv6Addr = "2001:db8::1".parse()?;
    ensure_eq!(v6.to_string(), "2001:db8::1");
    let address: SocketAddr = "[::1]:8080".parse()?;
    ensure!(address.ip() == IpAddr::from(Ipv6Addr::LOCALHOST), "[::1] is {address}");
    ensure_eq!(address.port(), 8080);
    "0.0.0.0:0".parse::<SocketAddr>().map_err(|e| failed(e))?;
    Ok(())
}
