//! What the network hears of a VM: every frame that each of the two hosts sends, taken at the
//! switch, so that no log of a VMM is believed.

use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockType, recvmsg,
            setsockopt, socket, sockopt,
        },
        time::TimeSpec,
    },
};
use std::{
    ffi::CString,
    io::IoSliceMut,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread::JoinHandle,
    time::Duration,
};
use vmm_lite_lab::site::Site;

/// The switch's ports to the two hosts.
pub const PORTS: [&str; 2] = ["a-up", "b-up"];
/// Enough for what arrives while the thread does not run.
const BUFFER: usize = 32 << 20;
/// How often a waiting thread looks whether it is asked for what it has.
const LOOK: u16 = 5;

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// When the switch received it, by the kernel's realtime clock.
    pub at: Duration,
    /// The host from which it came, by the switch's port.
    pub host: usize,
    pub bytes: Vec<u8>,
}

/// A capture that goes on until it is dropped.
#[derive(Debug)]
pub struct Capture {
    asks: Option<Sender<Sender<Vec<Frame>>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    pub fn start(site: &Site) -> Self {
        let sockets = site.switch.enter(|| PORTS.map(listen)).unwrap();
        let (asks, asked) = channel();
        let thread = std::thread::spawn(move || run(&sockets, &asked));
        Self { asks: Some(asks), thread: Some(thread) }
    }

    /// The frames since the last call, in the order in which the switch received them.
    pub fn take(&self) -> Vec<Frame> {
        let (reply, frames) = channel();
        self.asks.as_ref().unwrap().send(reply).expect("the capture runs");
        frames.recv().expect("the capture missed no frame")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.asks = None;
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|e| e.is_ok()), "frames were missed");
    }
}

/// A socket that gets all frames of a port.
fn listen(port: &str) -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    // With a protocol it would get the frames of all ports until it is bound.
    let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None).unwrap();
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true).unwrap();
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        // As much as a user may have who is root of a user namespace only.
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER).unwrap();
    }
    let name = CString::new(port).unwrap();
    // SAFETY: the string ends with 0, and all of the address is initialized.
    let bound = unsafe {
        let mut address: libc::sockaddr_ll = std::mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        assert!(address.sll_ifindex > 0, "no port {port}");
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of_val(&address) as u32)
    };
    assert_eq!(bound, 0, "{}", Errno::last());
    socket
}

fn run(sockets: &[OwnedFd; 2], asked: &Receiver<Sender<Vec<Frame>>>) {
    let mut frames = Vec::new();
    loop {
        // Before the reading, so that the answer has all that came before the question.
        let ask = match asked.try_recv() {
            Ok(ask) => Some(ask),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => return,
        };
        for (host, socket) in sockets.iter().enumerate() {
            while let Some(frame) = receive(socket, host) {
                frames.extend(frame);
            }
            assert_eq!(dropped(socket), 0, "the kernel had no room for frames");
        }
        if let Some(ask) = ask {
            // Each port's queue is in order; the two are merged.
            frames.sort_by_key(|frame: &Frame| frame.at);
            let _ = ask.send(std::mem::take(&mut frames));
            continue;
        }
        let mut waits = sockets.each_ref().map(|s| PollFd::new(s.as_fd(), PollFlags::POLLIN));
        match poll(&mut waits, PollTimeout::from(LOOK)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// The next one: `None` if there is none, `Some(None)` if it was sent to the host.
fn receive(socket: &OwnedFd, host: usize) -> Option<Option<Frame>> {
    let mut buffer = [0; 1 << 17];
    let mut control = cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::empty();
    let message =
        match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(message) => message,
            // A port that is taken down says so once.
            Err(Errno::ENETDOWN | Errno::EINTR) => return Some(None),
            Err(Errno::EAGAIN) => return None,
            Err(e) => panic!("{e}"),
        };
    let outgoing = message.address.is_none_or(|from| from.pkttype() == libc::PACKET_OUTGOING);
    let stamp = message.cmsgs().unwrap().find_map(|c| match c {
        ControlMessageOwned::ScmTimestampns(at) => Some(Duration::from(at)),
        _ => None,
    });
    let (length, at) = (message.bytes, stamp.expect("frames have times"));
    let bytes = buffer[..length].to_vec();
    Some((!outgoing).then_some(Frame { at, host, bytes }))
}

/// Frames that did not fit since the last call.
fn dropped(socket: &OwnedFd) -> u32 {
    // Two numbers: all frames, and those that were dropped.
    let mut counts = [0_u32; 2];
    let mut length = size_of_val(&counts) as libc::socklen_t;
    let (level, name) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    // SAFETY: the length is that of the buffer.
    let r = unsafe {
        let to = counts.as_mut_ptr().cast();
        libc::getsockopt(socket.as_raw_fd(), level, name, to, &raw mut length)
    };
    assert_eq!(r, 0, "{}", Errno::last());
    counts[1]
}
