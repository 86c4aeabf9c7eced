//! Clients that write until they are stopped, find the store again when it does not answer, and
//! know which writes were acknowledged.
//!
//! Each write has a key of its own, so that every lost one is counted. A write whose answer never
//! came may be there or not, and counts neither way.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use vmm_lite_lab::{Error, Result, error::Doing, net::Namespace, vmm::TIMEOUT};

use super::sentinel::MASTER;

/// Number of clients.
pub const CLIENTS: usize = 8;
/// Between an answer and the next write: leaves CPU time to the systems.
const PAUSE: Duration = Duration::from_micros(300);
/// A client of Sentinel that waits longer for a server looks for another one.
pub const LIMIT: Duration = Duration::from_millis(100);
/// Between two attempts to find a server.
const RETRY: Duration = Duration::from_millis(5);
/// Requests in flight when all writes are checked.
const BATCH: usize = 500;

/// How clients find the store.
#[derive(Clone, Debug)]
pub enum Finds {
    /// It has one address, and connections go on.
    Address(SocketAddr),
    /// The first address; after an error they ask these Sentinels, the nearest first.
    Sentinels(SocketAddr, Vec<SocketAddr>),
}

/// What one client knows.
#[derive(Clone, Debug, Default)]
pub struct Written {
    /// When each acknowledgement arrived.
    pub times: Vec<Instant>,
    /// Numbers of the acknowledged writes.
    acknowledged: Vec<u64>,
    /// How often it had to connect again.
    pub reconnects: u64,
}

/// The clients, running.
pub struct Writers {
    ns: Namespace,
    finds: Finds,
    stop: Arc<AtomicBool>,
    counts: Arc<[AtomicU64; CLIENTS]>,
    threads: Vec<JoinHandle<Result<Written>>>,
}

impl Writers {
    /// Starts them in `ns`. With `wait`, a write is acknowledged when `WAIT 1 0` after it is, as
    /// long as the store has not changed its address: no other replica is left then.
    pub fn start(ns: &Namespace, finds: Finds, wait: bool) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let threads = (0..CLIENTS).map(|number| {
            let (ns, stop, counts) = (ns.clone(), Arc::clone(&stop), Arc::clone(&counts));
            let mut client =
                Client { number, wait, finds: finds.clone(), seen: Written::default() };
            std::thread::spawn(move || {
                ns.enter(move || {
                    client.run(&stop, &counts);
                    client.seen
                })
            })
        });
        let threads = threads.collect();
        Self { ns: ns.clone(), finds, stop, counts, threads }
    }

    /// Waits until each client has `more` acknowledgements than now.
    ///
    /// # Errors
    /// If one does not get them in time.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let before: Vec<u64> = self.counts.iter().map(|count| count.load(Relaxed)).collect();
        let end = Instant::now() + TIMEOUT;
        loop {
            let mut both = self.counts.iter().zip(&before);
            if both.all(|(count, before)| count.load(Relaxed) >= before + more) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(Error::Timeout {
                    what: format!("{more} answers to each client"),
                    seconds: TIMEOUT.as_secs(),
                    output: format!("{:?}, before {before:?}", self.counts),
                });
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Stops them and looks for every acknowledged write. Returns what each client knows, and the
    /// number of writes that are lost.
    ///
    /// # Errors
    /// If the store cannot be asked.
    pub fn stop(self) -> Result<(Vec<Written>, u64)> {
        self.stop.store(true, Relaxed);
        let mut seen = Vec::new();
        for thread in self.threads {
            seen.push(thread.join().expect("a client does not panic")?);
        }
        let keys: Vec<String> = seen
            .iter()
            .enumerate()
            .flat_map(|(number, w)| w.acknowledged.iter().map(move |n| key(number, *n)))
            .collect();
        let finds = self.finds;
        let lost = self.ns.enter(move || missing(&finds, &keys))?.doing("look for the writes")?;
        Ok((seen, lost))
    }
}

impl Written {
    /// Number of acknowledged writes.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.len() as u64
    }
}

fn key(client: usize, number: u64) -> String {
    format!("written:{client}:{number}")
}

/// How many of these keys the store does not have. It is empty afterwards.
fn missing(finds: &Finds, keys: &[String]) -> io::Result<u64> {
    let mut connection = Connection::open(finds.now()?, TIMEOUT)?;
    let mut there = 0;
    for batch in keys.chunks(BATCH) {
        let requests: String = batch.iter().map(|key| format!("EXISTS {key}\r\n")).collect();
        connection.send(&requests)?;
        for _ in batch {
            there += u64::from(connection.line()? == ":1");
        }
    }
    connection.send("FLUSHALL\r\n")?;
    connection.expect("+OK")?;
    Ok(keys.len() as u64 - there)
}

impl Finds {
    fn first(&self) -> SocketAddr {
        let (Self::Address(address) | Self::Sentinels(address, _)) = self;
        *address
    }

    /// How long to wait for it.
    fn limit(&self) -> Duration {
        match self {
            Self::Address(_) => TIMEOUT,
            Self::Sentinels(..) => LIMIT,
        }
    }

    /// Where it is now.
    pub fn now(&self) -> io::Result<SocketAddr> {
        let Self::Sentinels(_, sentinels) = self else { return Ok(self.first()) };
        let answers = sentinels.iter().map(|sentinel| ask(*sentinel));
        let found = answers.into_iter().find_map(io::Result::ok);
        found.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "no Sentinel answers"))
    }
}

/// Asks a Sentinel for the master.
fn ask(sentinel: SocketAddr) -> io::Result<SocketAddr> {
    let mut connection = Connection::open(sentinel, LIMIT)?;
    connection.send(&format!("SENTINEL get-master-addr-by-name {MASTER}\r\n"))?;
    connection.expect("*2")?;
    let mut next = || connection.line().and_then(|_| connection.line());
    let (ip, port) = (next()?, next()?);
    format!("{ip}:{port}").parse().map_err(|_| invalid(&format!("{ip}:{port}")))
}

struct Client {
    number: usize,
    wait: bool,
    finds: Finds,
    seen: Written,
}

impl Client {
    fn run(&mut self, stop: &AtomicBool, counts: &[AtomicU64; CLIENTS]) {
        let first = self.finds.first();
        let mut at = first;
        let mut connection = Connection::open(at, self.finds.limit());
        let mut number = 0;
        while !stop.load(Relaxed) {
            number += 1;
            let wait = self.wait && at == first;
            let key = key(self.number, number);
            match connection.as_mut().map(|connection| connection.write(&key, wait)) {
                Ok(Ok(())) => {
                    self.seen.times.push(Instant::now());
                    self.seen.acknowledged.push(number);
                    counts[self.number].fetch_add(1, Relaxed);
                    // The rate of the load.
                    std::thread::sleep(PAUSE);
                }
                Ok(Err(_)) | Err(_) => {
                    self.seen.reconnects += 1;
                    std::thread::sleep(RETRY);
                    connection = self.finds.now().and_then(|found| {
                        at = found;
                        Connection::open(at, self.finds.limit())
                    });
                }
            }
        }
    }
}

/// A connection to a server or a Sentinel.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(address: SocketAddr, limit: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(limit))?;
        stream.set_write_timeout(Some(limit))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn send(&mut self, requests: &str) -> io::Result<()> {
        self.0.get_mut().write_all(requests.as_bytes())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn expect(&mut self, answer: &str) -> io::Result<()> {
        let line = self.line()?;
        if line == answer { Ok(()) } else { Err(invalid(&line)) }
    }

    /// Writes a value and waits until that is acknowledged.
    fn write(&mut self, key: &str, wait: bool) -> io::Result<()> {
        self.send(&format!("SET {key} VXK\r\n{}", if wait { "WAIT 1 0\r\n" } else { "" }))?;
        self.expect("+OK")?;
        if wait { self.expect(":1") } else { Ok(()) }
    }
}

fn invalid(said: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, said.to_owned())
}
