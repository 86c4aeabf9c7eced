//! The TX scheduler: sockets send one packet each, round robin, and again when a timer is due.

use super::{
    Error, LinkId, SocketId,
    connection_state::Cause,
    link::Sent,
    stack::{Socket, Stack},
    tcp::{Phase, Role, Tcp},
};
use crate::drivers::NetDevice;
use alloc::vec::Vec;
use core::mem;
use smoltcp::{socket::tcp::State, time::Duration};

/// How long to search for a neighbor.
const NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(3);
/// When to try again where smoltcp reports something to send and does not send it.
const RETRY: Duration = Duration::from_millis(1);

impl<D: NetDevice> Stack<D> {
    /// Puts a connection in the TX queue or among the timers, as smoltcp asks.
    pub(super) fn schedule(&mut self, id: SocketId) {
        let Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) =
            self.sockets.get_mut(id.0)
        else {
            return;
        };
        connection.update_timeout();
        match self.links.poll_at(connection.link, self.now, &connection.set) {
            Some(at) if at > self.now => self.timers.at_latest(id, &mut connection.timer, at),
            Some(_) if !mem::replace(&mut connection.queued, true) => self.tx_queue.push_back(id),
            Some(_) | None => {}
        }
    }

    /// Puts a socket in the TX queue, to send by `link`.
    pub(super) fn enqueue(&mut self, id: SocketId, link: LinkId) {
        let queued = match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) => {
                &mut connection.queued
            }
            Some(Socket::Udp(udp)) => match udp.outlet(link) {
                Some(outlet) => &mut outlet.queued,
                None => return,
            },
            _ => return,
        };
        if !mem::replace(queued, true) {
            self.tx_queue.push_back(id);
        }
    }

    pub(super) fn timer_due(&mut self, id: SocketId) {
        match self.sockets.get_mut(id.0) {
            Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) => {
                connection.timer = None;
                let link = connection.link;
                self.enqueue(id, link);
            }
            Some(Socket::Udp(udp)) => {
                udp.timer = None;
                for link in [LinkId::Loopback, LinkId::Ethernet] {
                    self.enqueue(id, link);
                }
            }
            _ => {}
        }
    }

    /// Lets queued sockets send one packet each, round robin. Returns whether anything was sent.
    pub(super) fn egress(&mut self, left: &mut usize) -> bool {
        let mut any = false;
        let mut waiting = Vec::new();
        if !self.links.egress_parts(LinkId::Ethernet, self.now) {
            return false;
        }
        while *left > 0
            && let Some(id) = self.tx_queue.pop_front()
        {
            let sent = match self.sockets.get_mut(id.0) {
                Some(Socket::Tcp(Tcp { role: Role::Connection(_), .. })) => self.send_tcp(id),
                Some(Socket::Udp(_)) => self.send_udp(id),
                _ => continue,
            };
            match sent {
                Sent::Packet => {
                    *left -= 1;
                    any = true;
                }
                Sent::Nothing => {}
                Sent::Full => waiting.push(id),
            }
        }
        self.tx_queue.extend(waiting);
        any
    }

    fn send_tcp(&mut self, id: SocketId) -> Sent {
        let Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) =
            self.sockets.get_mut(id.0)
        else {
            return Sent::Nothing;
        };
        let link = connection.link;
        let wanted =
            self.links.poll_at(link, self.now, &connection.set).is_some_and(|at| at <= self.now);
        if !wanted {
            connection.queued = false;
            self.update(id, Cause::Scheduled);
            return Sent::Nothing;
        }
        let sent = self.links.egress(link, self.now, &mut connection.set);
        if sent == Sent::Full {
            return sent; // And stays in the queue.
        }
        connection.queued = false;
        if sent == Sent::Packet {
            connection.stuck_since = None;
        } else {
            let again = self.links.poll_at(link, self.now, &connection.set);
            if again.is_some_and(|at| at <= self.now) {
                self.timers.at_latest(id, &mut connection.timer, self.now + RETRY);
                return sent;
            }
            if again.is_some() && connection.socket().state() != State::Closed {
                let since = *connection.stuck_since.get_or_insert(self.now);
                let connecting = connection.phase == Phase::Connecting;
                self.stuck.insert(id);
                if connecting && self.now >= since + NEIGHBOR_TIMEOUT {
                    self.connection_failed(id, Error::HostUnreachable);
                    return sent;
                }
            }
        }
        self.update(id, Cause::Scheduled);
        sent
    }

    fn send_udp(&mut self, id: SocketId) -> Sent {
        let mut result = Sent::Nothing;
        for link in [LinkId::Loopback, LinkId::Ethernet] {
            let Some(Socket::Udp(udp)) = self.sockets.get_mut(id.0) else { return result };
            let Some(outlet) = udp.outlet(link) else { continue };
            if !mem::replace(&mut outlet.queued, false) {
                continue;
            }
            let sent = self.links.egress(link, self.now, &mut outlet.set);
            if sent == Sent::Packet {
                outlet.stuck_since = None;
                result = sent;
            }
            // A datagram that is too long for one packet is sent to its end before anything else.
            let whole = self.links.egress_parts(link, self.now);
            match self.links.poll_at(link, self.now, &outlet.set) {
                _ if sent == Sent::Full || !whole => {
                    outlet.queued = true;
                    result = Sent::Full;
                }
                None => {
                    outlet.pending = false;
                    self.touch(id);
                }
                Some(at) if at <= self.now && sent == Sent::Packet => {
                    outlet.queued = true;
                    self.tx_queue.push_back(id);
                }
                Some(at) => {
                    let since = *outlet.stuck_since.get_or_insert(self.now);
                    if self.now >= since + NEIGHBOR_TIMEOUT {
                        udp.drop_unreachable(link);
                        self.touch(id);
                    } else {
                        let at = at.max(self.now + RETRY);
                        self.timers.at_latest(id, &mut udp.timer, at);
                        self.stuck.insert(id);
                    }
                }
            }
        }
        self.forget_if_sent(id);
        result
    }
}
