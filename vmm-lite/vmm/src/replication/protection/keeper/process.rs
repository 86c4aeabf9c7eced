//! The process that keeps the packets.
//!
//! It cannot know which host has taken over, and needs not: that host announces the guest to the
//! network, and the announcement comes to this device too. From then on what is put back into the
//! network reaches the guest. The packets get another Ethernet source address than the client's, as
//! the network would else learn that the client is here. A guest must take no address from them:
//! the client's IP address is that of another neighbour.

use crate::{
    devices::net::{
        backend::VNET_HEADER,
        tap::{KEPT_MAX, Tap},
    },
    host::{
        beside::leave_behind,
        confine::{self, Mode, Thread, privileges},
        poll::{Watch, wait_some},
        random,
    },
};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::{
    ffi::CStr,
    io::{self, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::{Duration, Instant},
};

/// The process's name, as the host shows it.
const NAME: &CStr = c"vmm-packets";
/// In place of an address: the device is given back.
pub(super) const KEEP_NONE: u8 = 0;
/// How long after it the network may still bring packets that were on their way.
const ON_THE_WAY: Duration = Duration::from_millis(10);
/// Limit in bytes of what is kept.
const BYTES_MAX: usize = 4 << 20;
/// Longest packet of a TAP device, with its headers.
const PACKET_MAX: usize = VNET_HEADER + 14 + 65_535;

type Mac = [u8; 6];

/// Runs the process, start to end.
pub(super) fn run(socket: &OwnedFd) {
    if confined(socket).is_ok()
        && let Ok(Some((tap, mac))) = attend(socket)
    {
        // A device that fails loses its packets.
        let _ = give_back(&Tap::over(tap), mac, Instant::now() + KEPT_MAX);
    }
}

fn confined(socket: &OwnedFd) -> Result<(), Box<dyn std::error::Error>> {
    leave_behind(NAME, Mode::Kill, &[socket.as_raw_fd()])?;
    privileges::drop_to(None)?;
    confine::arm(Mode::Kill)?;
    Ok(confine::enter(Thread::Packets)?)
}

/// Waits for the end of the VM's process. Returns the device of a VM that it ran then.
fn attend(socket: &OwnedFd) -> io::Result<Option<(OwnedFd, Mac)>> {
    let mut kept = None;
    loop {
        let (mut mac, mut room) = ([0; 6], nix::cmsg_space!([RawFd; 1]));
        let mut iov = [IoSliceMut::new(&mut mac)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut room), flags) {
            Err(nix::Error::EINTR) => continue,
            message => message?,
        };
        let (n, mut came) = (message.bytes, None);
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(fds) = control {
                for fd in fds {
                    // SAFETY: the kernel has just made the descriptor for this process.
                    came = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
            }
        }
        if n == 0 {
            return Ok(kept);
        }
        kept = came.map(|tap| (tap, mac));
    }
}

/// Gives the packets for `mac` back to the network, once that has brought word of it from
/// elsewhere, or drops them at `end`: clients have repeated them by then, and until then no other
/// VM can use the device.
fn give_back(tap: &Tap, mac: Mac, mut end: Instant) -> io::Result<()> {
    let (mut kept, mut bytes, mut elsewhere) = (Vec::new(), 0, false);
    let source = source_address()?;
    let mut packet = vec![0; PACKET_MAX];
    while Instant::now() < end {
        while let Some(n) = tap.read(&mut packet)? {
            let Some(ethernet) = packet[..n].get(VNET_HEADER..VNET_HEADER + 12) else { continue };
            let (to, from) = ethernet.split_at(6);
            if from == mac && !elsewhere {
                elsewhere = true;
                end = end.min(Instant::now() + ON_THE_WAY);
            } else if to == mac && bytes + n <= BYTES_MAX {
                bytes += n;
                kept.push(packet[..n].to_vec());
            }
        }
        if elsewhere {
            for mut packet in kept.drain(..) {
                packet[VNET_HEADER + 6..VNET_HEADER + 12].copy_from_slice(&source);
                tap.write(&packet)?;
            }
        }
        wait_some(&[Watch::Readable(tap.fd())], end.saturating_duration_since(Instant::now()))?;
    }
    Ok(())
}

/// An address that no device has.
fn source_address() -> io::Result<Mac> {
    let mut address: Mac = random::bytes()?;
    // Of one station, and assigned locally.
    address[0] = address[0] & !1 | 2;
    Ok(address)
}
