//! Sockets that programs have closed, and that still have something to send.

use super::{
    LinkId, SocketId,
    stack::{Socket, Stack},
    tcp::{Phase, Role, Tcp},
};
use crate::drivers::NetDevice;
use smoltcp::socket::tcp::State;

/// UDP sockets that linger at most, and what they may hold together, bytes; the oldest goes first.
/// They linger while the device takes nothing, or while a neighbor is searched for: that ends by
/// itself.
const SOCKETS_MAX: usize = 64;
const BYTES_MAX: usize = 512 << 10;

impl<D: NetDevice> Stack<D> {
    /// The program closes a UDP socket: its port is free, and what it has sent still leaves.
    pub(super) fn close_datagram(&mut self, id: SocketId) {
        let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0) else { return };
        if let Some(port) = udp.close() {
            self.udp_ports.release(id, port);
        }
        if !udp.is_sending() {
            self.forget(id);
            return;
        }
        while self.lingering_is_full()
            && let Some(&oldest) = self.lingering.front()
        {
            self.forget(oldest);
        }
        self.lingering.push_back(id);
    }

    /// Forgets a socket that was closed, once it has nothing to send.
    pub(super) fn forget_if_sent(&mut self, id: SocketId) {
        if let Some(Socket::Udp(udp)) = self.sockets.get(id.0)
            && udp.closed
            && !udp.is_sending()
        {
            self.forget(id);
        }
    }

    /// Whether UDP sockets linger.
    pub fn lingers(&self) -> bool {
        !self.lingering.is_empty()
    }

    /// Whether the next one that lingers takes the place of the oldest.
    pub fn lingering_is_full(&self) -> bool {
        let bytes = |id: &SocketId| match self.sockets.get(id.0) {
            Some(Socket::Udp(udp)) => udp.send_room(),
            _ => 0,
        };
        self.lingering.len() >= SOCKETS_MAX
            || self.lingering.iter().map(bytes).sum::<usize>() >= BYTES_MAX
    }

    /// How much of what programs have sent by `link` has not left, or is not acknowledged, of the
    /// sockets that they have closed: 0 when there is nothing to wait for.
    pub fn unfinished(&mut self, link: LinkId) -> usize {
        let parts = usize::from(self.links.has_parts(link, self.now));
        let of_socket = |socket: &Socket| match socket {
            Socket::Udp(udp) if udp.closed => udp.unsent(link),
            Socket::Tcp(Tcp { role: Role::Connection(connection), .. }) => {
                let finished =
                    matches!(connection.socket().state(), State::FinWait2 | State::TimeWait);
                let mine = connection.link == link && connection.phase == Phase::Orphan;
                match connection.socket().send_queue() {
                    _ if !mine || finished || connection.over() => 0,
                    bytes => bytes + 1,
                }
            }
            _ => 0,
        };
        parts + self.sockets.iter().map(|(_, socket)| of_socket(socket)).sum::<usize>()
    }
}
