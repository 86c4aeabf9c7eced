//! The kernel's network: the stack on this guest's device, when it runs, and the threads that wait
//! for it.

use super::{
    LinkId, SocketId, awaited,
    calls::Kind,
    stack::{Config, Stack},
};
use crate::{
    cpu::KernelCell,
    drivers::virtio::{mmio::Mmio, net::VirtioNet},
    entropy, mm, params, platform, print,
    sched::readiness::Waits,
    time,
};
use alloc::{rc::Rc, vec::Vec};
use core::{
    alloc::Layout,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};
use vmm_lite_interface::control::NetAddress;

/// The stack on the virtio driver.
pub type Network = Stack<VirtioNet>;

struct Global {
    network: Network,
    /// Threads that wait for each socket, by its number.
    waits: Vec<Option<Rc<Waits>>>,
    touched: Vec<SocketId>,
}

static GLOBAL: KernelCell<Option<Global>> = KernelCell::new(None);

/// Number of the queue of frames to be sent.
const TRANSMIT: u16 = 1;
/// Part of the memory that connections' buffers should take together.
const BUFFERS_SHARE: usize = 4;
/// Starts the network device, so that it announces its address, and answers its neighbors even for
/// a program that does not use it.
pub fn init() {
    if platform::net_mmio().is_some() {
        GLOBAL.with(|global| {
            let global = global.get_or_insert_with(make);
            global.network.announce();
            global.notify();
        });
    }
}

fn make() -> Global {
    let mut seed = [0; 8];
    entropy::fill(&mut seed);
    let device = platform::net_mmio().and_then(|address| {
        // SAFETY: the platform found the device there, and this is its only driver: made once.
        let registers = unsafe { Mmio::new(address) };
        VirtioNet::new(&registers).inspect_err(|e| print!("kernel: no network: {e}\n")).ok()
    });
    let ip = params::ip().and_then(|(ip, prefix)| Some((v4(ip)?, prefix)));
    let config = Config {
        ip,
        gateway: params::gateway().and_then(v4),
        mac: device.as_ref().map_or([0; 6], VirtioNet::mac),
        seed: u64::from_ne_bytes(seed),
        random: entropy::fill,
        epoch: platform::epoch,
        buffers: {
            let (used, free) = mm::usage();
            (used + free) / BUFFERS_SHARE
        },
        has_room,
    };
    let network = Stack::new(&config, device, time::now_ns());
    Global { network, waits: Vec::new(), touched: Vec::new() }
}

/// Whether that many bytes can be allocated in one piece.
fn has_room(bytes: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(bytes.max(1), 16) else { return false };
    let block = mm::allocate(layout);
    if block.is_null() {
        return false;
    }
    // SAFETY: just taken, with this layout.
    unsafe { mm::free(block, layout) };
    true
}

fn v4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

impl Global {
    /// Wakes threads whose sockets have changed, and notifies the device of what it has been given.
    fn notify(&mut self) {
        if self.network.any_touched() {
            self.network.take_touched(&mut self.touched);
            for &id in &self.touched {
                if let Some(Some(waits)) = self.waits.get(id.0 as usize) {
                    let listens = self.network.listens(id);
                    waits.wake(self.network.ready(id), listens);
                }
            }
        }
        if let Some(device) = self.network.device() {
            device.kick(|queue, wants| {
                // A device that is served at the doorbell needs no notification; the platform still
                // has to know that there is something to be sent.
                if wants || queue == TRANSMIT && platform::control().is_some() {
                    platform::notify_net(queue);
                }
            });
        }
    }
}

/// Calls `f` with the network. `f` must not wait.
pub fn with<R>(f: impl FnOnce(&mut Network) -> R) -> R {
    GLOBAL.with(|global| {
        let global = global.get_or_insert_with(make);
        let result = f(&mut global.network);
        global.notify();
        result
    })
}

/// A new socket, and its wait queues.
pub fn socket(kind: Kind) -> (SocketId, Rc<Waits>) {
    let id = with(|network| network.socket(kind));
    (id, waits(id))
}

/// Makes the wait queues of a socket that is new.
pub fn waits(id: SocketId) -> Rc<Waits> {
    let waits = Rc::new(Waits::default());
    GLOBAL.with(|global| {
        if let Some(global) = global {
            let n = id.0 as usize;
            if global.waits.len() <= n {
                global.waits.resize_with(n + 1, || None);
            }
            global.waits[n] = Some(Rc::clone(&waits));
        }
    });
    waits
}

/// Closes a socket. Datagrams that were sent by it leave now, as far as the device and neighbors
/// let them.
pub fn close(id: SocketId) {
    let full = GLOBAL.with(|global| {
        let Some(global) = global else { return false };
        if let Some(waits) = global.waits.get_mut(id.0 as usize) {
            *waits = None;
        }
        global.network.close(id);
        if global.network.lingers() {
            global.network.poll(time::now_ns());
        }
        global.notify();
        global.network.lingering_is_full()
    });
    if full {
        // Else the next one that is closed would make the oldest lose what it has to send.
        platform::poll();
        poll(time::now_ns());
    }
}

/// Moves packets. Returns when to call again at the latest: `now_ns` if there is more to do.
pub fn poll(now_ns: u64) -> Option<u64> {
    GLOBAL.with(|global| {
        let global = global.as_mut()?;
        let next = global.network.poll(now_ns);
        global.notify();
        next
    })
}

/// Whether the device has sent every frame that it was given.
pub fn device_has_sent_all() -> bool {
    GLOBAL.with(|global| {
        let device = global.as_mut().and_then(|global| global.network.device());
        device.is_none_or(VirtioNet::has_sent_all)
    })
}

/// Calls `page` with the address of each page of the device's buffers whose content need not be
/// kept now.
pub fn empty_pages(page: impl FnMut(usize)) {
    GLOBAL.with(|global| {
        if let Some(device) = global.as_mut().and_then(|global| global.network.device()) {
            device.empty_pages(page);
        }
    });
}

/// Uses the addresses that the VMM has given to this guest.
pub fn adopt(address: &NetAddress) {
    let given = address.given.load(Relaxed);
    let has = |bit: u32| given & bit != 0;
    let at = |word: &AtomicU32| Ipv4Addr::from_bits(word.load(Relaxed));
    let ip = has(NetAddress::IP).then(|| (at(&address.ip), address.prefix.load(Relaxed) as u8));
    let gateway = has(NetAddress::GATEWAY).then(|| at(&address.gateway));
    let count = (address.dns_len.load(Relaxed) as usize).min(address.dns.len());
    let dns = has(NetAddress::DNS).then(|| address.dns[..count].iter().map(|ip| at(ip).into()));
    params::adopt(ip.map(|(ip, prefix)| (ip.into(), prefix)), dns.map(Iterator::collect));
    let mac = address.mac.load(Relaxed).to_le_bytes();
    GLOBAL.with(|global| {
        if let Some(global) = global {
            let [mac @ .., _, _] = mac;
            global.network.readdress(mac, ip, gateway);
            global.notify();
        }
    });
}

/// How many sockets are open.
pub fn socket_count() -> usize {
    GLOBAL.with(|global| global.as_ref().map_or(0, |global| global.network.socket_count()))
}

/// Closes the first socket that is open from number `n` on; its number.
fn close_next(n: usize) -> Option<usize> {
    let next = GLOBAL.with(|global| {
        let waits = global.as_ref()?.waits.get(n..)?;
        Some(n + waits.iter().position(Option::is_some)?)
    })?;
    close(SocketId(next as u32));
    Some(next)
}

/// Closes all sockets; false if the program has used none.
pub fn close_all() -> bool {
    let mut next = 0;
    while let Some(closed) = close_next(next) {
        next = closed + 1;
    }
    GLOBAL.with(|global| global.is_some())
}

/// How much of what was sent by the network device has not left, or is not acknowledged, of sockets
/// that are closed.
pub fn unfinished() -> usize {
    with(|network| network.unfinished(LinkId::Ethernet))
}

/// Whether a thread waits for something that the network device may bring.
pub fn is_awaited() -> bool {
    awaited::any() && platform::net_mmio().is_some()
}
