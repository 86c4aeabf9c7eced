//! Serves a router on one thread: mio reports which connections are ready, and hyper is polled on
//! those.
//!
//! It replaces tokio's listener and reactor, which do not compile for the unikernel's target: they
//! need the socket2 crate, which does not support it. The rest of tokio, axum and hyper does.
//!
//! Limits what clients can use: a number of connections, [`BUFFER`] bytes of head for each, and a
//! time between two events. Clients over the limit, or for which there is no memory, are closed at
//! once instead of waiting.

use crate::io::{Io, Stream};
use crate::metrics::Metrics;
use axum::Router;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};
use tower_service::Service;

/// Most bytes buffered of a request's head.
const BUFFER: usize = 16 * 1024;
/// Memory that must be free for another connection: existing ones need some of it while they are
/// served.
const SPARE: usize = 1 << 20;
const LISTENER: Token = Token(usize::MAX);

/// Limits for clients.
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// How long a connection may be silent.
    pub idle: Duration,
}

/// A listener and all of its connections.
pub struct Server {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
    metrics: Arc<Metrics>,
    http: http1::Builder,
    limits: Limits,
    connections: Slab<Connection>,
    /// Connections to poll again after the others.
    again: Vec<usize>,
}

/// A connection: hyper's future, which ends with it.
struct Connection {
    future: Pin<Box<dyn Future<Output = hyper::Result<()>>>>,
    stream: Rc<Stream>,
    again: Arc<Again>,
    last_ready: Instant,
}

/// Whether a future asked to be polled again, though its stream is not ready. It can do that only
/// while it is polled: everything it waits for is on this thread.
#[derive(Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

impl Server {
    /// Listens on `port` of all addresses.
    pub fn bind(
        port: u16,
        limits: Limits,
        router: Router,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let address = listener.local_addr()?;
        let mut http = http1::Builder::new();
        http.max_buf_size(BUFFER).header_read_timeout(None);
        Ok(Self {
            poll,
            listener,
            address,
            router,
            metrics,
            http,
            limits,
            connections: Slab::new(),
            again: Vec::new(),
        })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until polling itself fails.
    pub fn run(mut self) -> io::Result<Infallible> {
        let mut events = Events::with_capacity(256);
        // Often enough that no connection stays much longer than allowed.
        let sweep = self.limits.idle / 4;
        let mut swept = Instant::now();
        loop {
            let timeout = match (self.again.is_empty(), self.connections.is_empty()) {
                (false, _) => Some(Duration::ZERO),
                (true, false) => Some(sweep),
                (true, true) => None,
            };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(now),
                    Token(id) => self.advance(id, now),
                }
            }
            for id in std::mem::take(&mut self.again) {
                self.advance(id, now);
            }
            if now.duration_since(swept) >= sweep {
                swept = now;
                self.close_silent(now);
            }
        }
    }

    /// Accepts every waiting connection.
    fn accept(&mut self, now: Instant) {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e)
                    if matches!(
                        e.kind(),
                        ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(e) => {
                    // Out of descriptors or memory: existing connections continue.
                    eprintln!("http: a connection could not be accepted: {e}");
                    return;
                }
            };
            if self.connections.len() >= self.limits.connections
                || Vec::<u8>::new().try_reserve_exact(SPARE).is_err()
            {
                self.metrics.refused();
                continue;
            }
            let slot = self.connections.vacant_entry();
            let id = slot.key();
            let watched = socket
                .set_nodelay(true)
                .and_then(|()| Stream::watch(socket, self.poll.registry(), Token(id)));
            let stream = match watched {
                Ok(stream) => Rc::new(stream),
                Err(error) => {
                    eprintln!("http: a connection was dropped: {error}");
                    continue;
                }
            };
            let (router, metrics) = (self.router.clone(), Arc::clone(&self.metrics));
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = router.clone().call(request);
                let metrics = Arc::clone(&metrics);
                async move {
                    let answer = answer.await;
                    answer.iter().for_each(|answer| metrics.answered(answer.status().as_u16()));
                    answer
                }
            });
            let future = Box::pin(self.http.serve_connection(Io(Rc::clone(&stream)), service));
            slot.insert(Connection { future, stream, again: Arc::default(), last_ready: now });
            self.metrics.connected();
            self.advance(id, now);
        }
    }

    /// Does everything on a connection that is possible without waiting.
    fn advance(&mut self, id: usize, now: Instant) {
        // An event may be older than the end of its connection.
        let Some(connection) = self.connections.get_mut(id) else { return };
        connection.last_ready = now;
        let waker = Waker::from(Arc::clone(&connection.again));
        let ended = match connection.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            std::task::Poll::Ready(ended) => ended.is_ok(),
            std::task::Poll::Pending => {
                if connection.again.0.swap(false, Relaxed) {
                    self.again.push(id);
                }
                match connection.stream.adjust(self.poll.registry(), Token(id)) {
                    Ok(()) => return,
                    Err(error) => {
                        eprintln!("http: a connection was dropped: {error}");
                        false
                    }
                }
            }
        };
        self.connections.remove(id);
        self.metrics.disconnected(ended);
    }

    fn close_silent(&mut self, now: Instant) {
        let (metrics, idle) = (&self.metrics, self.limits.idle);
        self.connections.retain(|_, connection| {
            let keep = now.duration_since(connection.last_ready) < idle;
            if !keep {
                metrics.disconnected(true);
            }
            keep
        });
    }
}
