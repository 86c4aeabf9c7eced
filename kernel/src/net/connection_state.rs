//! Connection state: how connections begin, what becomes of them, and how they end.

use super::{
    Error, LinkId, SocketId,
    stack::{Socket, Stack},
    tcp::{Connection, Phase, Role, Tcp},
};
use crate::drivers::NetDevice;
use alloc::boxed::Box;
use core::{mem, net::SocketAddrV4};
use smoltcp::{socket::tcp::State, wire::IpListenEndpoint};

/// Connections in TIME-WAIT that are kept; the oldest goes first.
const TIME_WAIT_MAX: usize = 64;

/// Why a connection's state is checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A packet came for it.
    Arrival,
    /// The TX scheduler let it send, or a timer is due.
    Scheduled,
    /// The program did something.
    Call,
}

impl<D: NetDevice> Stack<D> {
    /// A new connection for `listener`, if it has room for one.
    pub(super) fn half_open(
        &mut self,
        listener: SocketId,
        link: LinkId,
        local: SocketAddrV4,
        remote: SocketAddrV4,
    ) -> Option<SocketId> {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(listener.0) else { return None };
        let options = tcp.options;
        let Role::Listener(role) = &mut tcp.role else { return None };
        if role.half_open + role.queue.len() >= role.backlog {
            return None;
        }
        let buffer = self.budget.take(1, self.has_room).ok()?;
        let phase = Phase::HalfOpen(listener);
        let Some(mut connection) = Connection::new(link, local, remote, phase, buffer) else {
            self.budget.give_back(buffer);
            return None;
        };
        role.half_open += 1;
        connection.apply(&options);
        let endpoint = IpListenEndpoint { addr: Some((*local.ip()).into()), port: local.port() };
        connection.socket_mut().listen(endpoint).expect("a new socket, and a port that is not 0");
        connection.seen = State::Listen;
        let role = Role::Connection(Box::new(connection));
        let id =
            SocketId(self.sockets.insert(Socket::Tcp(Tcp { options, role, ..Tcp::default() })));
        self.connections.insert((local, remote), id);
        Some(id)
    }

    pub(super) fn connection(&mut self, id: SocketId) -> Option<&mut Connection> {
        match self.sockets.get_mut(id.0)? {
            Socket::Tcp(Tcp { role: Role::Connection(connection), .. }) => Some(connection),
            _ => None,
        }
    }

    /// Updates the state of a connection, and schedules when it is checked next.
    pub(super) fn update(&mut self, id: SocketId, cause: Cause) {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) else { return };
        let Role::Connection(connection) = &mut tcp.role else { return };
        let (was, is) = (connection.seen, connection.socket().state());
        connection.seen = is;
        match connection.phase {
            Phase::Connecting => match is {
                State::SynSent | State::SynReceived => {}
                State::Closed => {
                    let error = match cause {
                        Cause::Arrival => Error::ConnectionRefused,
                        Cause::Scheduled | Cause::Call => Error::TimedOut,
                    };
                    return self.connection_failed(id, error);
                }
                _ => {
                    connection.phase = Phase::Open;
                    self.touch(id);
                }
            },
            Phase::HalfOpen(listener) => match is {
                State::SynReceived => {}
                State::Closed | State::Listen => {
                    self.remove_connection(id);
                    return;
                }
                _ => self.opened(id, listener),
            },
            Phase::Queued(_) | Phase::Open => {
                if is == State::Closed && was != State::Closed {
                    let regular = matches!(was, State::LastAck | State::TimeWait);
                    tcp.error = match cause {
                        _ if regular => None,
                        Cause::Arrival if was == State::CloseWait => Some(Error::BrokenPipe),
                        Cause::Arrival => Some(Error::ConnectionReset),
                        Cause::Scheduled => Some(Error::TimedOut),
                        Cause::Call => None,
                    };
                }
                self.touch(id);
            }
            Phase::Orphan => {
                if connection.socket().recv_queue() > 0 && is != State::Closed {
                    // No program will ever read it: the peer should know.
                    connection.socket_mut().abort();
                    connection.seen = State::Closed;
                } else if is == State::TimeWait {
                    // Within the guest nothing is lost: once it was let send, all has been sent.
                    if connection.link == LinkId::Loopback && cause == Cause::Scheduled {
                        self.remove_connection(id);
                        return;
                    }
                    self.wait_out(id);
                }
                if self.connection(id).is_none_or(|c| c.over()) {
                    self.remove_connection(id);
                    return;
                }
            }
        }
        self.schedule(id);
    }

    /// Keeps a connection in TIME-WAIT, as far as there is room.
    fn wait_out(&mut self, id: SocketId) {
        let Some(connection) = self.connection(id) else { return };
        if mem::replace(&mut connection.waits, true) {
            return;
        }
        self.time_wait_bytes += 2 * connection.buffer;
        self.time_wait.push_back(id);
        while self.time_wait.len() > TIME_WAIT_MAX
            || self.time_wait_bytes > self.budget.idle_share() && self.time_wait.len() > 1
        {
            let Some(&oldest) = self.time_wait.front() else { break };
            self.remove_connection(oldest);
        }
    }

    /// A connection to `listener` is open.
    fn opened(&mut self, id: SocketId, listener: SocketId) {
        if let Some(connection) = self.connection(id) {
            connection.phase = Phase::Queued(listener);
        }
        if let Some(Socket::Tcp(Tcp { role: Role::Listener(role), .. })) =
            self.sockets.get_mut(listener.0)
        {
            role.half_open -= 1;
            role.queue.push_back(id);
            self.touch(listener);
        }
    }

    /// An attempt to connect has failed: the socket is as before, with an error to be fetched.
    pub(super) fn connection_failed(&mut self, id: SocketId, error: Error) {
        self.drop_connection(id);
        if let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) {
            tcp.error = Some(error);
        }
        self.touch(id);
    }

    /// Takes the connection away from its socket.
    fn drop_connection(&mut self, id: SocketId) {
        let Some(Socket::Tcp(tcp)) = self.sockets.get_mut(id.0) else { return };
        if !matches!(tcp.role, Role::Connection(_)) {
            return;
        }
        let Role::Connection(mut gone) = mem::take(&mut tcp.role) else { return };
        self.connections.remove(&(gone.local, gone.remote));
        self.timers.cancel(id, &mut gone.timer);
        self.budget.give_back(gone.buffer);
        if gone.waits {
            self.time_wait.retain(|&other| other != id);
            self.time_wait_bytes -= 2 * gone.buffer;
        }
        if let Phase::HalfOpen(listener) = gone.phase
            && let Some(Socket::Tcp(Tcp { role: Role::Listener(role), .. })) =
                self.sockets.get_mut(listener.0)
        {
            role.half_open -= 1;
        }
    }

    /// Forgets a connection that no program has.
    pub(super) fn remove_connection(&mut self, id: SocketId) {
        self.drop_connection(id);
        self.forget(id);
    }

    /// Removes a socket from all tables.
    pub(super) fn forget(&mut self, id: SocketId) {
        // Its entries in `tx_queue` and `stuck` find nothing, or another socket with nothing to do.
        match self.sockets.remove(id.0) {
            Some(Socket::Tcp(tcp)) => {
                if let Some(bound) = tcp.bound {
                    self.tcp_ports.release(id, bound.port());
                }
            }
            Some(Socket::Udp(mut udp)) => {
                self.timers.cancel(id, &mut udp.timer);
                if udp.closed {
                    self.lingering.retain(|&other| other != id);
                }
                if let Some(bound) = udp.bound {
                    self.udp_ports.release(id, bound.port());
                }
            }
            None => {}
        }
    }
}
