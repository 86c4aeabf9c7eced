//! HTTP, as far as a scraper needs it: one thread and few connections, each with a short time and a
//! small request.
//!
//! Peers are not authenticated. A connection gets a request of 4 KiB and five seconds in total, and
//! the oldest is closed when there are too many: no peer can block the others for long, or make the
//! process grow.

use super::{At, Error, text};
use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::FileTypeExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use vmm::{
    host::confine::{self, Thread},
    host::watchdog::{self, Doing},
    replication::protection::Member,
};

/// Connections served at a time.
const CONNECTIONS_MAX: usize = 16;
/// Longest request, in bytes.
const REQUEST_MAX: usize = 4 << 10;
/// How long a connection may last.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Smaller than the smallest stacks that leave room for printing.
const STACK: usize = 128 << 10;

/// A place where metrics are served. Dropping it removes its Unix socket from the file system.
#[derive(Debug)]
pub struct Endpoint {
    listener: Option<Listener>,
    path: Option<PathBuf>,
    member: Arc<OnceLock<Member>>,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoint {
    /// Listens at that place. Replaces a Unix socket on which no process listens any more.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub fn listen(at: &At) -> Result<Self, Error> {
        let failed = |source| Error::Listen { at: at.clone(), source };
        let (listener, path) = match at {
            At::Tcp(address) => {
                let listener = TcpListener::bind(address).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                (Listener::Tcp(listener), None)
            }
            At::Unix(path) => {
                remove_stale(path);
                let listener = UnixListener::bind(path).map_err(failed)?;
                listener.set_nonblocking(true).map_err(failed)?;
                (Listener::Unix(listener), Some(path.clone()))
            }
        };
        Ok(Self { listener: Some(listener), path, member: Arc::default() })
    }

    /// Starts serving, on a thread of its own.
    ///
    /// # Errors
    /// If the host cannot start a thread.
    pub fn serve(&mut self) -> io::Result<()> {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        let member = Arc::clone(&self.member);
        let serve = move || {
            if let Err(e) = confine::enter(Thread::Metrics) {
                tracing::error!("metrics are not served: {}", vmm::host::with_causes(&e));
                return;
            }
            serve(&listener, &member);
        };
        let thread = std::thread::Builder::new().name(Thread::Metrics.name().into());
        thread.stack_size(STACK).spawn(serve).map(drop)
    }

    /// Sets the VM whose metrics are served from now on.
    pub fn shows(&self, member: &Member) {
        // A process has one VM, so this is set once.
        let _ = self.member.set(member.clone());
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A process without the right to remove it leaves it to the next, which replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

fn remove_stale(path: &Path) {
    let socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    let refused = |e: io::Error| e.kind() == ErrorKind::ConnectionRefused;
    if socket && UnixStream::connect(path).is_err_and(refused) {
        // If it stays, listening fails and reports that.
        let _ = fs::remove_file(path);
    }
}

trait Stream: Read + Write + AsRawFd {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}

impl Listener {
    fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }

    fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Box::new(stream)
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Box::new(stream)
            }
        })
    }
}

/// A client's connection.
struct Connection {
    stream: Box<dyn Stream>,
    until: Instant,
    request: Vec<u8>,
    /// The rest of the answer to send, once the request is complete.
    answer: Vec<u8>,
}

impl Connection {
    fn answering(&self) -> bool {
        !self.answer.is_empty()
    }

    /// Continues with it. Returns whether there is more to do.
    fn go_on(&mut self, member: &OnceLock<Member>) -> io::Result<bool> {
        if !self.answering() {
            let mut buffer = [0; REQUEST_MAX];
            let room = REQUEST_MAX - self.request.len();
            let n = self.stream.read(&mut buffer[..room])?;
            self.request.extend(&buffer[..n]);
            if !self.request.windows(4).any(|end| end == b"\r\n\r\n") {
                // The request has ended, or is too long.
                return Ok(n > 0 && self.request.len() < REQUEST_MAX);
            }
            self.answer = answer(&self.request, member);
        }
        let n = self.stream.write(&self.answer)?;
        self.answer.drain(..n);
        Ok(n > 0 && self.answering())
    }
}

fn serve(listener: &Listener, member: &OnceLock<Member>) {
    let mut connections: Vec<Connection> = Vec::new();
    let _attends = watchdog::attend(Thread::Metrics.name());
    loop {
        let mut fds = vec![entry(listener.fd(), libc::POLLIN)];
        fds.extend(connections.iter().map(|c| {
            entry(c.stream.as_raw_fd(), if c.answering() { libc::POLLOUT } else { libc::POLLIN })
        }));
        let next = connections.iter().map(|c| c.until).min();
        let left = next.map(|until| until.saturating_duration_since(Instant::now()).as_millis());
        let timeout = left.map_or(-1, |ms| ms.min(1 << 20) as libc::c_int + 1);
        // SAFETY: the entries are valid; after a failure none has events, and all are polled again.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
        let _owes = watchdog::owe(Doing::Scrape);
        fail_point!("metrics.serving");
        let now = Instant::now();
        let mut events = fds[1..].iter().map(|fd| fd.revents != 0);
        connections.retain_mut(|connection| {
            let ready = events.next().unwrap_or(false);
            now < connection.until && (!ready || more(connection.go_on(member)))
        });
        if fds[0].revents == 0 {
            continue;
        }
        match listener.accept() {
            Ok(stream) => {
                if connections.len() == CONNECTIONS_MAX {
                    connections.remove(0);
                }
                let (until, request, answer) = (now + TIMEOUT, Vec::new(), Vec::new());
                connections.push(Connection { stream, until, request, answer });
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            // Out of descriptors, most likely: open connections will end.
            Err(e) => {
                tracing::debug!("a scraper could not be accepted: {e}");
                connections.clear();
            }
        }
    }
}

fn entry(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

fn more(went: io::Result<bool>) -> bool {
    match went {
        Ok(more) => more,
        Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

fn answer(request: &[u8], member: &OnceLock<Member>) -> Vec<u8> {
    let line = request.split(|b| *b == b'\r').next().unwrap_or_default();
    let mut words = line.split(|b| *b == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        (b"GET", b"/metrics") => ("200 OK", text::CONTENT_TYPE, text::of(member.get())),
        (b"GET", _) => ("404 Not Found", "text/plain", "the metrics are at /metrics\n".into()),
        _ => ("405 Method Not Allowed", "text/plain", "only GET is supported\n".into()),
    };
    let length = body.len();
    format!(
        "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: \
         close\r\n\r\n{body}"
    )
    .into_bytes()
}
