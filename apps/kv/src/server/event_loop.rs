//! The event loop: waits for events or for the next expiry, and serves each connection that is
//! ready.

use super::connection::{Connection, Scratch, Turn};
use crate::commands::{self, Context, Session, State};
use crate::config::Config;
use crate::vmm::unix_ms;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

const LISTENER: Token = Token(usize::MAX - 1);
/// Most events handled at once.
const EVENTS: usize = 1024;
/// Most expired keys removed before the clients are served.
const EXPIRED_PER_TURN: usize = 200;

/// The server.
#[derive(Debug)]
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    /// By number; [`State::sessions`] has the same numbers.
    connections: Slab<Box<Connection>>,
    state: State,
    scratch: Scratch,
    /// Connections with more to do after their turn.
    busy: VecDeque<usize>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn bind(config: Config) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::new(config.bind, config.port))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Slab::new(),
            state: State::new(config),
            scratch: Scratch::new(),
            busy: VecDeque::new(),
        })
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// The server's state, for its first messages.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Serves until SHUTDOWN.
    ///
    /// # Errors
    /// Waiting for events fails.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        let mut now = unix_ms();
        while !self.state.shutdown {
            match self.poll.poll(&mut events, self.timeout(now)) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => other?,
            }
            now = unix_ms();
            for _ in 0..self.busy.len() {
                if let Some(number) = self.busy.pop_front() {
                    self.turn(number, now);
                }
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now),
                    Token(number) => self.turn(number, now),
                }
            }
            self.state.store.expire_due(now, EXPIRED_PER_TURN);
            while let Some((number, id)) = self.state.kills.pop() {
                if self.state.sessions.get(number).is_some_and(|session| session.id == id) {
                    self.remove(number, now);
                }
            }
        }
        Ok(())
    }

    /// How long there is nothing to do unless an event arrives.
    fn timeout(&self, now: u64) -> Option<Duration> {
        if !self.busy.is_empty() {
            return Some(Duration::ZERO);
        }
        self.state.store.next_expiry().map(|when| Duration::from_millis(when.saturating_sub(now)))
    }

    fn turn(&mut self, number: usize, now: u64) {
        let Some(connection) = self.connections.get_mut(number) else { return };
        match connection.turn(&mut self.state, number, now, &mut self.scratch, self.poll.registry())
        {
            Turn::Waits => {}
            Turn::Again => self.busy.push_back(number),
            Turn::Ended => self.remove(number, now),
        }
    }

    fn accept(&mut self, now: u64) {
        loop {
            match self.listener.accept() {
                Ok((stream, peer)) => self.welcome(stream, peer, now),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionAborted
                    ) => {}
                Err(e) => {
                    // Out of descriptors or memory: existing connections continue.
                    eprintln!("kv: a connection could not be accepted: {e}");
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: TcpStream, peer: SocketAddr, now: u64) {
        self.state.stats.connections += 1;
        // The connection already uses memory of the system, which is not counted here.
        self.state.memory.look();
        if self.connections.len() >= self.state.config.max_clients
            || self.state.memory.is_exhausted()
        {
            self.state.stats.rejected += 1;
            Connection::new(stream).say_goodbye("-ERR max number of clients reached\r\n");
            return;
        }
        let number = self.connections.vacant_key();
        // Replies are sent complete; waiting for more data would only delay them.
        let ready = stream
            .set_nodelay(true)
            .and_then(|()| {
                self.poll.registry().register(&mut stream, Token(number), Interest::READABLE)
            })
            .and_then(|()| stream.local_addr());
        let local = match ready {
            Ok(local) => local,
            // It has disconnected already.
            Err(_) => return,
        };
        let session = Session::new(self.state.next_id, peer, local, now);
        self.state.next_id += 1;
        self.connections.insert(Box::new(Connection::new(stream)));
        let same = self.state.sessions.insert(Box::new(session));
        debug_assert_eq!(number, same);
    }

    fn remove(&mut self, number: usize, now: u64) {
        if let Some(mut connection) = self.connections.try_remove(number) {
            connection.deregister(self.poll.registry());
            commands::unwatch(&mut Context { state: &mut self.state, client: number, now });
            self.state.sessions.remove(number);
            self.busy.retain(|&busy| busy != number);
        }
    }
}
