//! The packets that a dead primary leaves behind.
//!
//! When a primary's process dies, the kernel takes some milliseconds to release its memory; until
//! then, and until another member has taken over, the network goes on sending to its TAP device.
//! What waits there would be lost with the device, and clients would repeat it only after their
//! retransmission timeout, 200 ms and more. So a process beside the VM's holds the device as well,
//! and when the VM's has died it [returns](process) what is there to the network, which brings it
//! to the new primary.

mod process;

use crate::{host::beside::beside, identity::signer::socket, vm::Vm};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// The VM's end.
#[derive(Debug)]
pub struct PacketKeeper {
    socket: OwnedFd,
    keeps: bool,
}

impl PacketKeeper {
    /// Starts the process, detached from this one. Call it while there is only one thread.
    ///
    /// # Errors
    /// The host's error.
    pub fn start() -> io::Result<Self> {
        let (socket, _) = beside(|socket, _| process::run(socket))?;
        Ok(Self::new(socket))
    }

    /// The one at the other end of `socket`.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket, keeps: false }
    }

    /// The socket for the VM's process.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has it keep the packets for `vm`, which this process runs, or keep none.
    ///
    /// # Errors
    /// The socket's: the packets of a dead primary are lost.
    pub(super) fn keep(&mut self, vm: Option<&Vm>) -> io::Result<()> {
        if self.keeps == vm.is_some() {
            return Ok(());
        }
        self.keeps = vm.is_some();
        let Some((tap, mac)) = vm.and_then(Vm::network_device) else {
            return socket::put(&self.socket, &[process::KEEP_NONE]);
        };
        let fds = [tap.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        sendmsg::<()>(self.socket.as_raw_fd(), &[IoSlice::new(&mac)], &rights, flags, None)?;
        Ok(())
    }
}
