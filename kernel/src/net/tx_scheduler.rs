//! Who may send when: one packet each in turn, and again when a timer says so.

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

/// How long a neighbor may be looked for.
const NEIGHBOR_TIMEOUT: Duration = Duration::from_secs(3);
/// When to try again where smoltcp says it has something to send and does not send it.
const RETRY: Duration = Duration::from_millis(1);

impl<D: NetDevice> Stack<D> {
    /// Puts a connection in the queue of those that may send, or among the timers, as it asks.
    pub(super) fn schedule(&mut self, id: SocketId) {
        let Some(Socket::Tcp(Tcp { role: Role::Connection(connection), .. })) =
            self.sockets.get_mut(id.0)
        else {
            return;
        };
        connection.update_timeout();
        match self.links.poll_at(connection.link, self.now, &connection.set) {
            Some(at) if at > self.now => self.timers.at_latest(id, &mut connection.timer, at),
            Some(_) if !mem::replace(&mut connection.queued, true) => self.turn.push_back(id),
            Some(_) | None => {}
        }
    }

    /// Puts a socket in the queue of those that may send by `link`.
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
            self.turn.push_back(id);
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

    /// Lets those send that may, one packet each in turn. Whether anything was sent.
    pub(super) fn egress(&mut self, left: &mut usize) -> bool {
        let mut any = false;
        let mut waiting = Vec::new();
        if !self.links.egress_parts(LinkId::Ethernet, self.now) {
            return false;
        }
        while *left > 0
            && let Some(id) = self.turn.pop_front()
        {
            let sent = match self.sockets.get_mut(id.0) {
                Some(Socket::Tcp(Tcp { role: Role::Connection(_), .. })) => self.tcp_turn(id),
                Some(Socket::Udp(_)) => self.udp_turn(id),
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
        self.turn.extend(waiting);
        any
    }

    fn tcp_turn(&mut self, id: SocketId) -> Sent {
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
            self.look_at(id, Cause::Turn);
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
        self.look_at(id, Cause::Turn);
        sent
    }

    fn udp_turn(&mut self, id: SocketId) -> Sent {
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
            // What is too long for one packet goes out to its end before anything else does.
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
                    self.turn.push_back(id);
                }
                Some(at) => {
                    let since = *outlet.stuck_since.get_or_insert(self.now);
                    if self.now >= since + NEIGHBOR_TIMEOUT {
                        udp.give_up(link);
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
