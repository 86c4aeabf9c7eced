//! Takes links of a site's switch down and up at once: without a process of its own for each.

use std::io;

use crate::{
    error::{Doing, Result},
    site::Site,
};

/// The switch's ports to a host: to the clients' network, and to the other host.
const PORTS: [[&str; 2]; 2] = [["a-up", "a-mig"], ["b-up", "b-mig"]];

/// All that joins a host to others.
#[must_use]
pub fn of_host(host: usize) -> &'static [&'static str] {
    &PORTS[host]
}

/// The link between the two hosts, over which no client is reached.
#[must_use]
pub fn of_pair() -> &'static [&'static str] {
    &["a-mig"]
}

/// Sets the state of these ports.
///
/// # Errors
/// If the switch has no such port.
pub fn set(site: &Site, ports: &'static [&'static str], up: bool) -> Result<()> {
    let set = move || ports.iter().try_for_each(|port| set_one(port, up));
    site.switch.enter(set)?.doing(format!("set the state of {ports:?}"))
}

fn set_one(port: &str, up: bool) -> io::Result<()> {
    let flag = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is initialized, its name ends with 0, and the socket is closed below.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(port.bytes()) {
            *to = from.cast_signed();
        }
        let read = libc::ioctl(socket, libc::SIOCGIFFLAGS, &raw mut request);
        let flags = request.ifr_ifru.ifru_flags;
        request.ifr_ifru.ifru_flags = if up { flags | flag } else { flags & !flag };
        let written = libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw mut request);
        let result =
            if read == 0 && written == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        libc::close(socket);
        result
    }
}
