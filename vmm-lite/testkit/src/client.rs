//! A client of the VM, on a single connection, that checks what it is told.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use vmm_lite_lab::{net::Namespace, probe::Connection, vmm::TIMEOUT};

/// The port on which the guests listen.
pub const PORT: u16 = 6379;
/// How often a waiting client checks whether it has to end.
const LOOK: Duration = Duration::from_millis(100);

/// The client's requests, and what it knows from the answers.
#[derive(Debug)]
pub enum Talk {
    /// The store counts: no number repeats, and none is left out.
    Store { count: u64 },
    /// The self-checking memory: never fewer pages than reported before, by the same instance.
    Memory { nonce: Option<String>, written: u64 },
}

impl Talk {
    fn question(&self) -> &'static [u8] {
        match self {
            Self::Store { .. } => b"INCR told\r\n",
            Self::Memory { .. } => b"status\n",
        }
    }

    fn take(&mut self, line: &str) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{what}: {line}"));
        match self {
            Self::Store { count } => {
                *count += 1;
                if line.trim_end() != format!(":{count}") {
                    return wrong(&format!("this should be {count}"));
                }
            }
            Self::Memory { nonce, written } => {
                let Ok(status) = serde_json::from_str::<serde_json::Value>(line) else {
                    return wrong("no status");
                };
                let now = status["pages_written"].as_u64().unwrap_or_default();
                let who = status["nonce"].as_str().map(str::to_owned);
                if status["errors"] != 0 || now < *written {
                    return wrong(&format!("memory was lost since {written} pages were written"));
                }
                if nonce.is_some() && *nonce != who {
                    return wrong("another instance");
                }
                (*nonce, *written) = (who, now);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Told {
    answers: u64,
    wrong: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    told: Mutex<Told>,
    more: Condvar,
    ends: AtomicBool,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Connects as soon as the guest listens.
    pub fn start(ns: &Namespace, mut talk: Talk) -> Self {
        let address = SocketAddr::from(([10, 0, 0, 2], PORT));
        drop(Connection::open_when_up(ns, address, TIMEOUT).unwrap());
        let stream = ns.enter(move || TcpStream::connect(address)).unwrap().unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let ended = converse(&stream, &mut talk, &of_thread);
            of_thread.told().wrong = ended.err();
            of_thread.more.notify_all();
        });
        let this = Self { shared, thread: Some(thread) };
        this.hears("the VM has just been started");
        this
    }

    /// Waits until it receives an answer that was sent after this call; fails if anything it was
    /// told before is lost.
    #[track_caller]
    pub fn hears(&self, what: &str) {
        let end = Instant::now() + TIMEOUT;
        let mut told = self.shared.told();
        // One answer may have been in transit already.
        let enough = told.answers + 2;
        while told.answers < enough {
            assert_eq!(told.wrong, None, "{what}");
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what}: the client hears nothing");
            let more = self.shared.more.wait_timeout(told, left);
            told = more.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.ends.store(true, SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_none_or(|e| e.is_ok()), "the client panicked");
    }
}

fn converse(mut stream: &TcpStream, talk: &mut Talk, shared: &Shared) -> Result<(), String> {
    let mut line = Vec::new();
    loop {
        stream.write_all(talk.question()).map_err(|e| format!("cannot ask: {e}"))?;
        line.clear();
        while line.last() != Some(&b'\n') {
            if shared.ends.load(SeqCst) {
                return Ok(());
            }
            let mut some = [0; 4096];
            match stream.read(&mut some) {
                Ok(0) => return Err("the VM closed the connection".into()),
                Ok(n) => line.extend_from_slice(&some[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(e) => return Err(format!("the connection broke: {e}")),
            }
        }
        talk.take(&String::from_utf8_lossy(&line))?;
        shared.told().answers += 1;
        shared.more.notify_all();
        // The rate of a client that leaves the CPU to others; nothing depends on it.
        std::thread::sleep(Duration::from_millis(1));
    }
}
