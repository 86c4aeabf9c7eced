//! A network namespace for one test, and the driver's side of the network device.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use vmm::{
    devices::{
        Violation,
        device::Device,
        net::{Moved, Net, link::wait_running, tap::Tap},
    },
    memory::GuestRam,
};

/// Moves the calling thread into a network namespace of its own, with a TAP device `tap` that is
/// up. Reports a skip if that is not permitted.
pub fn namespace(tap: &str) -> bool {
    // SAFETY: the call changes only the namespace of this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        let error = io::Error::last_os_error();
        vmm_lite_lab::skipped("network", format_args!("no network namespace: {error}"));
        return false;
    }
    let steps = [
        vec!["tuntap", "add", tap, "mode", "tap"],
        vec!["link", "set", tap, "up"],
        vec!["link", "set", "lo", "up"],
    ];
    for step in steps {
        let _forking = no_fork();
        match Command::new("ip").args(&step).status() {
            Ok(status) if status.success() => {}
            other => {
                let why = format!("ip {}: {other:?}", step.join(" "));
                vmm_lite_lab::skipped("network", why);
                return false;
            }
        }
    }
    true
}

/// Keeps other threads of this process from forking. Between fork and exec a child holds every
/// descriptor of its parent, so a TAP device that was just closed stays busy that long.
pub fn no_fork() -> MutexGuard<'static, ()> {
    static FORK: Mutex<()> = Mutex::new(());
    FORK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A packet socket on a network device: the other end of the guest's wire.
pub struct Wire(OwnedFd);

impl Wire {
    pub fn on(device: &str) -> Self {
        let all = (libc::ETH_P_ALL as u16).to_be();
        let name = std::ffi::CString::new(device).unwrap();
        // SAFETY: plain system calls on a descriptor that this value owns; the address is valid and
        // of the given size.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, all.into());
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            let fd = OwnedFd::from_raw_fd(fd);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = all;
            address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
            let size = size_of_val(&address) as u32;
            assert_eq!(libc::bind(fd.as_raw_fd(), (&raw const address).cast(), size), 0);
            Self(fd)
        }
    }

    pub fn send(&self, frame: &[u8]) {
        // SAFETY: the buffer is valid.
        let n = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(n, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// Whether a frame for which `wanted` holds has arrived.
    pub fn has(&self, wanted: impl Fn(&[u8]) -> bool) -> bool {
        let mut buffer = vec![0; 70_000];
        loop {
            // SAFETY: the buffer is valid.
            let n = unsafe {
                let buffer = (buffer.as_mut_ptr().cast(), buffer.len());
                libc::recv(self.0.as_raw_fd(), buffer.0, buffer.1, libc::MSG_DONTWAIT)
            };
            match usize::try_from(n) {
                Ok(n) if wanted(&buffer[..n]) => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Waits for the next frame for which `wanted` holds.
    pub fn expect(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let mut buffer = vec![0; 70_000];
        loop {
            // SAFETY: the pointer is to one valid entry.
            assert!(unsafe { libc::poll(&raw mut poll, 1, 60_000) } > 0, "no such frame came");
            // SAFETY: the buffer is valid.
            let n = unsafe {
                libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0)
            };
            let frame = &buffer[..usize::try_from(n).unwrap()];
            if wanted(frame) {
                return frame.to_vec();
            }
        }
    }
}

/// An Ethernet frame that no kernel sends by itself.
pub fn frame(mark: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    frame.resize(len, mark);
    frame
}

pub fn is_ours(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x88, 0xb5])
}

pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const QUEUE: u16 = 8;

/// The driver: writes registers and rings as a guest would, and as no guest should.
pub struct Driver {
    pub ram: GuestRam,
    pub net: Net,
    /// The device that it is on.
    pub tap: Tap,
}

/// The addresses of the parts of queue `q`.
pub fn ring(q: u64) -> (u64, u64, u64) {
    let base = 0x10_0000 + q * 0x3000;
    (base, base + 0x1000, base + 0x2000)
}

pub fn buffer(q: u64, n: u16) -> u64 {
    0x14_0000 + q * 0x4_0000 + u64::from(n) * 0x4000
}

impl Driver {
    pub fn new(tap: &str) -> Self {
        let device = Tap::open(tap).unwrap();
        let (mtu, _) = device.mtu_and_up().unwrap();
        assert!(wait_running(&device, Duration::from_secs(60)).unwrap(), "{tap} does not come up");
        let net = Net::new(device.try_clone().unwrap(), MAC, mtu);
        Self { ram: GuestRam::new(4 << 20).unwrap(), net, tap: device }
    }

    pub fn write(&mut self, register: u64, value: u32) -> Result<(), Violation> {
        self.net.write(register, &value.to_le_bytes(), self.ram.writable())
    }

    pub fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.net.read(register, &mut data).unwrap();
        u32::from_le_bytes(data)
    }

    pub fn agree(&mut self, low: u32) -> Result<(), Violation> {
        for (register, value) in
            [(0x70, 1), (0x70, 3), (0x24, 0), (0x20, low), (0x24, 1), (0x20, 1), (0x70, 11)]
        {
            self.write(register, value)?;
        }
        Ok(())
    }

    pub fn set_up_queue(
        &mut self,
        q: u64,
        size: u32,
        parts: (u64, u64, u64),
    ) -> Result<(), Violation> {
        let (desc, avail, used) = parts;
        self.write(0x30, q as u32)?;
        self.write(0x38, size)?;
        for (register, address) in [(0x80, desc), (0x90, avail), (0xa0, used)] {
            self.write(register, address as u32)?;
            self.write(register + 4, (address >> 32) as u32)?;
        }
        self.write(0x44, 1)
    }

    /// Sets up everything, up to a device that is live.
    pub fn go(&mut self) -> Result<(), Violation> {
        self.agree(1 << 5)?;
        for q in [0, 1] {
            self.set_up_queue(q, QUEUE.into(), ring(q))?;
        }
        self.write(0x70, 15)
    }

    pub fn descriptor(&mut self, q: u64, n: u16, address: u64, len: u32, flags: u16, next: u16) {
        let mut bytes = address.to_le_bytes().to_vec();
        bytes.extend(len.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.ram.writable().write(ring(q).0 + u64::from(n) * 16, &bytes).unwrap();
    }

    pub fn half(&self, address: u64) -> u16 {
        let mut bytes = [0; 2];
        self.ram.read(address, &mut bytes).unwrap();
        u16::from_le_bytes(bytes)
    }

    /// Makes descriptor `head` available.
    pub fn offer(&mut self, q: u64, head: u16) {
        let avail = ring(q).1;
        let index = self.half(avail + 2);
        self.ram
            .writable()
            .write(avail + 4 + u64::from(index % QUEUE) * 2, &head.to_le_bytes())
            .unwrap();
        self.ram.writable().write(avail + 2, &index.wrapping_add(1).to_le_bytes()).unwrap();
    }

    /// How many entries the device has used, and the length of the last.
    pub fn used(&self, q: u64) -> (u16, u32) {
        let used = ring(q).2;
        let index = self.half(used + 2);
        let mut len = [0; 4];
        let last = u64::from(index.wrapping_sub(1) % QUEUE);
        self.ram.read(used + 4 + last * 8 + 4, &mut len).unwrap();
        (index, u32::from_le_bytes(len))
    }

    /// Waits until the TAP has a packet; a sent packet may take a while to get there.
    pub fn wait_for_packet(&self) {
        let mut poll = libc::pollfd { fd: self.tap.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the pointer is to one valid entry.
        assert!(unsafe { libc::poll(&raw mut poll, 1, 60_000) } > 0, "no packet came");
    }

    pub fn pass(&mut self) -> Result<Moved, Violation> {
        self.net.pass(self.ram.writable())
    }
}
