//! Sockets: calls that wait, on a stack that does not.

use super::Errno;
use crate::{
    net::{
        self, AwaitsNetwork, Error, Options, SocketId,
        calls::{Kind, Shutdown},
    },
    sched::{
        WaitQueue, Wake,
        readiness::{Ready, Waits},
    },
    time,
};
use alloc::rc::Rc;
use core::net::{Ipv4Addr, SocketAddrV4};

/// How long a call handles packets before it reports that there is no memory, ns.
const NO_MEMORY_TIME: u64 = 20_000_000;

/// A socket that has a descriptor.
#[derive(Debug)]
pub struct Socket {
    id: SocketId,
    waits: Rc<Waits>,
    kind: Kind,
}

impl Drop for Socket {
    fn drop(&mut self) {
        net::close(self.id);
    }
}

/// Tries until it need not wait, or `timeout` ns are over.
fn wait_for<R>(
    queue: &WaitQueue,
    nonblocking: bool,
    timeout: Option<u64>,
    mut attempt: impl FnMut() -> Result<R, Error>,
) -> Result<R, Errno> {
    let mut deadline = None;
    loop {
        match attempt() {
            Err(Error::WouldBlock) if !nonblocking => {}
            result => return Ok(result?),
        }
        if let (None, Some(timeout)) = (deadline, timeout) {
            deadline = Some(time::now_ns().saturating_add(timeout));
        }
        let awaits = AwaitsNetwork::begin();
        let wake = queue.wait(deadline);
        drop(awaits);
        if wake == Wake::TimedOut {
            return Ok(attempt()?);
        }
    }
}

impl Socket {
    /// A new one.
    pub fn new(kind: Kind) -> Self {
        let (id, waits) = net::socket(kind);
        Self { id, waits, kind }
    }

    /// Whether it keeps messages apart.
    pub fn is_datagram(&self) -> bool {
        self.kind == Kind::Datagram
    }

    /// The threads that wait for it.
    pub(super) fn waits(&self) -> &Rc<Waits> {
        &self.waits
    }

    /// What it is ready for.
    pub fn ready(&self) -> Ready {
        net::with(|network| network.ready(self.id))
    }

    /// Binds it to an address of this guest.
    ///
    /// # Errors
    /// As on Linux.
    pub fn bind(&self, to: SocketAddrV4) -> Result<(), Errno> {
        Ok(net::with(|network| network.bind(self.id, to))?)
    }

    /// Lets it accept connections, of which `backlog` may wait.
    ///
    /// # Errors
    /// As on Linux.
    pub fn listen(&self, backlog: usize) -> Result<(), Errno> {
        Ok(net::with(|network| network.listen(self.id, backlog))?)
    }

    /// Closes one direction, or both.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn shut_down(&self, how: Shutdown) -> Result<(), Errno> {
        Ok(net::with(|network| network.shut_down(self.id, how))?)
    }

    /// Its own address.
    pub fn local_address(&self) -> SocketAddrV4 {
        net::with(|network| network.local_address(self.id))
    }

    /// Its peer's address.
    ///
    /// # Errors
    /// `ENOTCONN`.
    pub fn peer_address(&self) -> Result<SocketAddrV4, Errno> {
        Ok(net::with(|network| network.peer_address(self.id))?)
    }

    /// Its options.
    pub fn options(&self) -> Options {
        net::with(|network| network.options(self.id))
    }

    /// Changes its options.
    pub fn set_options(&self, change: impl FnOnce(&mut Options)) {
        net::with(|network| network.set_options(self.id, change));
    }

    /// Joins a multicast group, or leaves it.
    ///
    /// # Errors
    /// As on Linux.
    pub fn set_membership(&self, group: Ipv4Addr, join: bool) -> Result<(), Errno> {
        Ok(net::with(|network| network.set_membership(group, join))?)
    }

    /// The pending error, which this clears.
    pub fn take_error(&self) -> Option<Error> {
        net::with(|network| network.take_error(self.id))
    }

    /// Size of each of its buffers, bytes.
    pub fn buffer_size(&self) -> usize {
        net::with(|network| network.buffer_sizes(self.id))
    }

    fn timeouts(&self) -> (Option<u64>, Option<u64>) {
        let options = self.options();
        (options.receive_timeout, options.send_timeout)
    }

    /// Receives; 0 is the end of a stream.
    ///
    /// # Errors
    /// As on Linux.
    pub fn receive(&self, to: &mut [u8], peek: bool, nonblocking: bool) -> Result<usize, Errno> {
        let attempt = net::with(|network| network.receive(self.id, to, peek));
        // Mostly there is something: options matter only to calls that wait.
        if attempt != Err(Error::WouldBlock) || nonblocking {
            return Ok(attempt?);
        }
        let (timeout, _) = self.timeouts();
        wait_for(&self.waits.readers, nonblocking, timeout, || {
            net::with(|network| network.receive(self.id, to, peek))
        })
    }

    /// Receives; returns how many bytes, and from which address.
    ///
    /// # Errors
    /// As on Linux.
    pub fn receive_from(
        &self,
        to: &mut [u8],
        peek: bool,
        nonblocking: bool,
    ) -> Result<(usize, SocketAddrV4), Errno> {
        let (timeout, _) = self.timeouts();
        let (n, from) = wait_for(&self.waits.readers, nonblocking, timeout, || {
            net::with(|network| network.receive_from(self.id, to, peek))
        })?;
        Ok((n, from.map_or_else(|| self.peer_address(), Ok)?))
    }

    /// Sends: a whole datagram, or of a stream all if it may wait, else what there is room for.
    ///
    /// # Errors
    /// As on Linux.
    pub fn send(
        &self,
        from: &[u8],
        to: Option<SocketAddrV4>,
        nonblocking: bool,
    ) -> Result<usize, Errno> {
        let send = |from: &[u8]| match to {
            None => net::with(|network| network.send(self.id, from)),
            Some(_) => net::with(|network| network.send_to(self.id, from, to)),
        };
        let mut sent = match send(from) {
            Err(Error::WouldBlock) if !nonblocking => 0,
            result => result?,
        };
        if sent == from.len() || nonblocking {
            return Ok(sent);
        }
        let (_, timeout) = self.timeouts();
        while sent < from.len() || from.is_empty() {
            let rest = &from[sent..];
            match wait_for(&self.waits.writers, false, timeout, || send(rest)) {
                Ok(n) => sent += n,
                Err(_) if sent > 0 => break,
                Err(e) => return Err(e),
            }
            if from.is_empty() {
                break;
            }
        }
        Ok(sent)
    }

    /// The next connection to it, and its peer.
    ///
    /// # Errors
    /// As on Linux.
    pub fn accept(&self, nonblocking: bool) -> Result<(Self, SocketAddrV4), Errno> {
        let (timeout, _) = self.timeouts();
        let (id, peer) = wait_for(&self.waits.readers, nonblocking, timeout, || {
            net::with(|network| network.accept(self.id))
        })?;
        // One thread is woken for several connections that arrive at once: it wakes the next.
        if self.ready().readable {
            self.waits.readers.wake_one();
        }
        Ok((Self { id, waits: net::waits(id), kind: Kind::Stream }, peer))
    }

    /// Connects to `to`; `None` takes a datagram socket's peer away.
    ///
    /// # Errors
    /// As on Linux.
    pub fn connect(&self, to: Option<SocketAddrV4>, nonblocking: bool) -> Result<(), Errno> {
        let Some(to) = to else {
            return Ok(net::with(|network| network.connect_datagram(self.id, None))?);
        };
        let mut attempt = net::with(|network| network.connect(self.id, to));
        if attempt == Err(Error::NoMemory) {
            // Connections that were closed a moment ago free theirs once their last packets are
            // handled.
            let end = time::now_ns() + NO_MEMORY_TIME;
            while net::poll(time::now_ns()).is_some_and(|next| next <= time::now_ns().min(end)) {}
            attempt = net::with(|network| network.connect(self.id, to));
        }
        match attempt {
            Err(Error::InProgress) if !nonblocking => {}
            result => return Ok(result?),
        }
        let (_, timeout) = self.timeouts();
        wait_for(&self.waits.writers, false, timeout, || {
            match net::with(|network| network.connect_result(self.id)) {
                Err(Error::InProgress) => Err(Error::WouldBlock),
                result => result,
            }
        })
    }
}
