//! Names to addresses: numbers, this machine's own names, and what name servers say.

use super::user;
use crate::events;
use crate::{
    entropy,
    net::{
        self, SocketId,
        calls::Kind,
        dns::{self, Answer},
    },
    params,
    sched::{Wake, readiness::Waits},
    time,
};
use alloc::{boxed::Box, rc::Rc, vec, vec::Vec};
use core::{
    ffi::c_char,
    net::{IpAddr, Ipv4Addr, SocketAddrV4},
    ptr, str,
};
use hermit_abi::{
    AF_INET, AF_UNSPEC, EAI_AGAIN, EAI_FAIL, EAI_FAMILY, EAI_NONAME, EAI_SERVICE, addrinfo, errno,
    sockaddr_in,
};

/// How long one server is waited for, ns, and how often each is asked.
const PATIENCE: u64 = 2_000_000_000;
const ROUNDS: usize = 2;

/// An open UDP socket that no descriptor stands for.
struct Asker {
    id: SocketId,
    waits: Rc<Waits>,
}

impl Drop for Asker {
    fn drop(&mut self) {
        net::close(self.id);
    }
}

impl Asker {
    fn new() -> Self {
        let (id, waits) = net::socket(Kind::Datagram);
        Self { id, waits }
    }

    /// Asks one server; `None` when it does not answer in time.
    fn ask(&self, server: Ipv4Addr, question: &[u8]) -> Option<Answer> {
        let to = SocketAddrV4::new(server, dns::PORT);
        let sent = net::with(|network| {
            // Connected, so that nobody else can answer, and that nobody being there is told.
            network.connect(self.id, to)?;
            network.send(self.id, question)
        });
        sent.ok()?;
        let deadline = time::now_ns() + PATIENCE;
        let mut buffer = [0; dns::ANSWER_MAX];
        loop {
            match net::with(|network| network.receive(self.id, &mut buffer, false)) {
                Ok(n) => {
                    if let Some(answer) = dns::answer(&buffer[..n], question) {
                        return Some(answer);
                    }
                }
                Err(net::Error::WouldBlock) => {
                    if self.waits.readers.wait(Some(deadline)) == Wake::TimedOut {
                        return None;
                    }
                }
                Err(_) => return None,
            }
        }
    }
}

/// What the name servers say of `name`.
fn ask_servers(name: &[u8]) -> Result<Vec<Ipv4Addr>, i32> {
    let servers = params::dns().into_iter().filter_map(|server| match server {
        IpAddr::V4(server) => Some(server),
        IpAddr::V6(_) => None,
    });
    let servers: Vec<Ipv4Addr> = servers.collect();
    if servers.is_empty() {
        return Err(EAI_AGAIN);
    }
    let mut failure = EAI_AGAIN;
    for _ in 0..ROUNDS {
        for &server in &servers {
            // Another port and another number each time: both are hard to guess for who would answer instead.
            let mut id = [0; 2];
            entropy::fill(&mut id);
            let question = dns::question(u16::from_ne_bytes(id), name).ok_or(EAI_NONAME)?;
            match Asker::new().ask(server, &question) {
                Some(Answer::Addresses(addresses)) => return Ok(addresses),
                Some(Answer::None) => return Err(EAI_NONAME),
                Some(Answer::Failure) => failure = EAI_FAIL,
                None => {}
            }
        }
    }
    Err(failure)
}

/// Addresses of `name`, at least one, or an `EAI_` number.
fn resolve(name: &[u8]) -> Result<Vec<Ipv4Addr>, i32> {
    let text = str::from_utf8(name).map_err(|_| EAI_NONAME)?;
    match text.parse() {
        Ok(IpAddr::V4(ip)) => return Ok(vec![ip]),
        Ok(IpAddr::V6(_)) => return Err(EAI_FAMILY),
        Err(_) => {}
    }
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST]);
    }
    if params::hostname().is_some_and(|own| own.eq_ignore_ascii_case(&host)) {
        return Ok(vec![match params::ip() {
            Some((IpAddr::V4(ip), _)) => ip,
            _ => Ipv4Addr::LOCALHOST,
        }]);
    }
    ask_servers(name)
}

/// One result, with the address it points to.
#[repr(C)]
struct Entry {
    info: addrinfo,
    address: sockaddr_in,
}

/// The list that the caller gets, and gives back to [`sys_freeaddrinfo`].
fn list(addresses: &[Ipv4Addr], port: u16, hints: &addrinfo) -> *mut addrinfo {
    let mut next = ptr::null_mut();
    for &ip in addresses.iter().rev() {
        let entry = Box::into_raw(Box::new(Entry {
            info: addrinfo {
                ai_flags: 0,
                ai_family: AF_INET,
                ai_socktype: hints.ai_socktype,
                ai_protocol: hints.ai_protocol,
                ai_addrlen: size_of::<sockaddr_in>() as u32,
                ai_canonname: ptr::null_mut(),
                ai_addr: ptr::null_mut(),
                ai_next: next,
            },
            address: super::address::to_abi(SocketAddrV4::new(ip, port)),
        }));
        // SAFETY: just made; the address stays where it is, in the same box.
        unsafe { (*entry).info.ai_addr = (&raw mut (*entry).address).cast() };
        next = entry.cast();
    }
    next
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> i32 {
    events::checkpoint();
    let any = addrinfo {
        ai_flags: 0,
        ai_family: AF_UNSPEC,
        ai_socktype: 0,
        ai_protocol: 0,
        ai_addrlen: 0,
        ai_canonname: ptr::null_mut(),
        ai_addr: ptr::null_mut(),
        ai_next: ptr::null_mut(),
    };
    // SAFETY: null, or the caller's.
    let hints = unsafe { hints.as_ref() }.unwrap_or(&any);
    if !matches!(hints.ai_family, AF_UNSPEC | AF_INET) {
        return EAI_FAMILY;
    }
    let port = match service.is_null() {
        true => Ok(0),
        // SAFETY: the caller's string. Names of services are not known, only numbers.
        false => unsafe { user::string(service) }
            .ok()
            .and_then(|text| str::from_utf8(text).ok()?.parse().ok())
            .ok_or(EAI_SERVICE),
    };
    let addresses = match node.is_null() {
        true => Ok(vec![Ipv4Addr::LOCALHOST]),
        // SAFETY: the caller's string.
        false => unsafe { user::string(node) }.map_err(|_| EAI_NONAME).and_then(resolve),
    };
    match port.and_then(|port| Ok((port, addresses?))) {
        Ok((port, addresses)) if !result.is_null() => {
            // SAFETY: not null, and the caller's.
            unsafe { result.write(list(&addresses, port, hints)) };
            0
        }
        Ok(_) => EAI_FAIL,
        Err(error) => error,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_freeaddrinfo(mut info: *mut addrinfo) {
    while !info.is_null() {
        // SAFETY: the caller gives back a list of `sys_getaddrinfo`, whose entries are these boxes.
        let entry = unsafe { Box::from_raw(info.cast::<Entry>()) };
        info = entry.info.ai_next;
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_getaddrbyname(name: *const c_char, to: *mut u8, len: usize) -> i32 {
    events::checkpoint();
    // SAFETY: the caller's string.
    let addresses = unsafe { user::string(name) }.map_err(|_| EAI_NONAME).and_then(resolve);
    // SAFETY: the caller's buffer.
    let to = unsafe { user::bytes_mut(to, len) };
    match (addresses, to) {
        (Ok(addresses), Ok(to)) if to.len() == 4 => {
            to.copy_from_slice(&addresses[0].octets());
            0
        }
        (Ok(_), _) => -errno::EINVAL,
        (Err(_), _) => -errno::ENOENT,
    }
}
