//! Clients that know what they were told. Each keeps one connection for the whole test, counts, and
//! writes; whatever was acknowledged must be there at any time.

use crate::voices::ADDRESS;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use vmm_lite_lab::{net::Namespace, probe::Connection, vmm::TIMEOUT};

/// Between an answer and the next request: leaves the CPUs to the VMs.
const PAUSE: Duration = Duration::from_micros(300);
/// Keys of a client, written in turn.
const KEYS: u64 = 64;
/// One in so many requests is a write to a key; the others count.
const WRITES: u64 = 4;

/// What the clients have been told so far.
#[derive(Debug)]
struct Told {
    /// Times of answers, by client.
    answers: Vec<Vec<Instant>>,
    /// The first thing that was wrong.
    wrong: Option<String>,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    more: Condvar,
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wrong(&self, what: String) {
        self.told().wrong.get_or_insert(what);
        self.more.notify_all();
    }
}

/// The clients.
#[derive(Debug)]
pub struct Oracle {
    shared: Arc<Shared>,
    /// Where each client is asked to check all it knows.
    checks: Vec<Sender<Sender<Result<(), String>>>>,
    streams: Vec<TcpStream>,
    threads: Vec<JoinHandle<()>>,
}

impl Oracle {
    /// `clients` of them in `ns`, connected as soon as the VM listens.
    pub fn start(ns: &Namespace, clients: usize) -> Self {
        let address = SocketAddr::from((ADDRESS, 6379));
        drop(Connection::open_when_up(ns, address, TIMEOUT).unwrap());
        let told = Told { answers: vec![Vec::new(); clients], wrong: None };
        let shared = Arc::new(Shared { told: Mutex::new(told), more: Condvar::new() });
        let (mut checks, mut streams, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..clients {
            let stream = ns.enter(move || TcpStream::connect(address)).unwrap().unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            streams.push(stream.try_clone().unwrap());
            let (check, checked) = channel();
            let mut client = Client::new(number, stream);
            let shared = Arc::clone(&shared);
            checks.push(check);
            threads.push(std::thread::spawn(move || {
                if let Err(what) = client.run(&shared, &checked) {
                    shared.wrong(format!("client {number}: {what}"));
                }
            }));
        }
        Self { shared, checks, streams, threads }
    }

    /// What was wrong so far.
    ///
    /// # Errors
    /// That.
    pub fn so_far(&self) -> Result<(), String> {
        self.shared.told().wrong.clone().map_or(Ok(()), Err)
    }

    /// Waits until every client has been answered a request that was sent after this call.
    ///
    /// # Errors
    /// What was wrong before, or who hears nothing.
    pub fn hears(&self) -> Result<(), String> {
        let end = Instant::now() + TIMEOUT;
        let mut told = self.shared.told();
        // One answer may have been under way already.
        let enough: Vec<_> = told.answers.iter().map(|times| times.len() + 2).collect();
        loop {
            if let Some(wrong) = &told.wrong {
                return Err(wrong.clone());
            }
            let missing = told.answers.iter().zip(&enough).position(|(times, n)| times.len() < *n);
            let Some(client) = missing else { return Ok(()) };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("client {client} hears nothing for {TIMEOUT:?}"));
            }
            let more = self.shared.more.wait_timeout(told, left);
            told = more.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has every client read all it has ever written, on its connection.
    ///
    /// # Errors
    /// What is not as it was acknowledged.
    pub fn check(&self) -> Result<(), String> {
        let (reply, results) = channel();
        for check in &self.checks {
            // A client that has ended has said why.
            let _ = check.send(reply.clone());
        }
        drop(reply);
        results.iter().collect::<Result<Vec<_>, _>>()?;
        self.so_far()
    }

    /// How many answers there were since `since`.
    pub fn answers_since(&self, since: Instant) -> usize {
        let told = self.shared.told();
        let late = |times: &Vec<Instant>| times.iter().rev().take_while(|at| **at > since).count();
        told.answers.iter().map(late).sum()
    }

    /// For each client the longest time without an answer that ended after `since`. Forgets the
    /// times of all answers but the last.
    pub fn gaps(&self, since: Instant) -> Vec<Duration> {
        let mut told = self.shared.told();
        told.answers
            .iter_mut()
            .map(|times| {
                let late = times.windows(2).filter(|pair| pair[1] > since);
                let gap = late.map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
                times.drain(..times.len().saturating_sub(1));
                gap
            })
            .collect()
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.checks.clear();
        for stream in &self.streams {
            // It wakes a client that waits for an answer; one whose connection broke has ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// One connection, and what was acknowledged on it.
struct Client {
    number: usize,
    stream: TcpStream,
    answers: BufReader<TcpStream>,
    rounds: u64,
    count: u64,
    /// Versions of the keys.
    keys: HashMap<u64, u64>,
    /// Which instance of the program answers: a number that it drew when it started and that only
    /// its memory has.
    instance: Option<String>,
}

impl Client {
    fn new(number: usize, stream: TcpStream) -> Self {
        let answers = BufReader::new(stream.try_clone().unwrap());
        let (rounds, count, keys, instance) = (0, 0, HashMap::new(), None);
        Self { number, stream, answers, rounds, count, keys, instance }
    }

    fn run(
        &mut self,
        shared: &Shared,
        checks: &Receiver<Sender<Result<(), String>>>,
    ) -> Result<(), String> {
        loop {
            match checks.try_recv() {
                Ok(reply) => {
                    let result = self.check();
                    // Who asked may have given up.
                    let _ = reply.send(result.clone());
                    result?;
                }
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(()),
            }
            self.request()?;
            shared.told().answers[self.number].push(Instant::now());
            shared.more.notify_all();
            // The rate of the load; nothing depends on it.
            std::thread::sleep(PAUSE);
        }
    }

    /// The next write, and what it is answered.
    fn request(&mut self) -> Result<(), String> {
        self.rounds += 1;
        let (number, round) = (self.number, self.rounds);
        if !round.is_multiple_of(WRITES) {
            let answer = self.ask(&format!("INCR count-{number}\r\n"))?;
            self.count += 1;
            return same(&answer, &format!(":{}", self.count), "the counter");
        }
        let key = round / WRITES % KEYS;
        let answer = self.ask(&format!("SET key-{number}-{key} {}\r\n", value(round)))?;
        same(&answer, "+OK", "the answer to a write")?;
        self.keys.insert(key, round);
        Ok(())
    }

    /// Reads all of it.
    fn check(&mut self) -> Result<(), String> {
        let number = self.number;
        for (key, version) in self.keys.clone() {
            let read = self.bulk(&format!("GET key-{number}-{key}\r\n"))?;
            same(&read, &value(version), &format!("key {key}, which was acknowledged,"))?;
        }
        let count = self.bulk(&format!("GET count-{number}\r\n"))?;
        same(&count, &self.count.to_string(), "the counter, read,")?;
        let info = self.bulk("INFO server\r\n")?;
        let id = info.lines().find_map(|line| line.strip_prefix("run_id:"));
        let id = id.ok_or_else(|| format!("no run_id in {info:?}"))?;
        match &self.instance {
            Some(before) => same(id, before, "the instance"),
            None => {
                self.instance = Some(id.to_owned());
                Ok(())
            }
        }
    }

    fn ask(&mut self, request: &str) -> Result<String, String> {
        self.stream.write_all(request.as_bytes()).map_err(|e| format!("cannot ask: {e}"))?;
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(_) if line.ends_with("\r\n") => Ok(line.trim_end().to_owned()),
            Ok(_) => Err(format!("the connection was closed after {line:?}")),
            Err(e) => Err(format!("the connection broke: {e}")),
        }
    }

    fn bulk(&mut self, request: &str) -> Result<String, String> {
        let header = self.ask(request)?;
        let length = header.strip_prefix('$').and_then(|n| n.parse::<usize>().ok());
        let length = length.ok_or_else(|| format!("{request:?} is answered {header:?}"))?;
        let mut text = vec![0; length + 2];
        self.answers.read_exact(&mut text).map_err(|e| format!("the connection broke: {e}"))?;
        text.truncate(length);
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Values differ in length too, some are larger than a segment.
fn value(version: u64) -> String {
    let repeated = if version.is_multiple_of(64) { 400 } else { 1 + version as usize % 7 };
    format!("{version:08}.").repeat(repeated)
}

fn same(found: &str, expected: &str, what: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let short = |text: &str| text.chars().take(60).collect::<String>();
    Err(format!("{what} is {:?}, not {:?}", short(found), short(expected)))
}
