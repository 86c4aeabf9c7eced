//! Many connections that write as fast as answers arrive, with several requests in flight on each,
//! and count the confirmed writes: at the end the store must hold exactly those.
//!
//! [`Probe`](crate::probe::Probe) has one request in flight and times it. Here a move always finds
//! incomplete writes: in a socket's buffer, on the wire, executed with the answer still in transit.
//! A write that is lost, doubled or reordered shows at once in its connection's own counter, and
//! one that was confirmed to no connection in the counter that all of them share.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    error::{Doing, Error, Result},
    net::Namespace,
    probe::Connection,
};

/// Rounds of requests in flight on each connection; a round increments the connection's own counter
/// and the shared one.
const DEPTH: u64 = 8;
/// How long an answer may take.
const TIMEOUT: Duration = crate::vmm::TIMEOUT;

/// Running writers.
#[derive(Debug)]
pub struct Writers {
    ns: Namespace,
    server: SocketAddr,
    key: String,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<std::result::Result<u64, String>>>,
}

impl Writers {
    /// Connects `count` writers from `ns` and starts them. Their counters are `KEY:0`, `KEY:1` …
    /// and `KEY:all`.
    ///
    /// # Errors
    /// If a connection cannot be made.
    pub fn start(ns: &Namespace, server: SocketAddr, key: &str, count: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut all = Self {
            ns: ns.clone(),
            server,
            key: key.to_owned(),
            stop: Arc::clone(&stop),
            threads: Vec::new(),
        };
        let mut clear = all.connect()?;
        clear.request(&format!("DEL {key}:all\r\n")).doing("clear the writers' counter")?;
        for n in 0..count {
            clear.request(&format!("DEL {key}:{n}\r\n")).doing("clear a writer's counter")?;
            let stream = ns
                .enter(move || TcpStream::connect_timeout(&server, TIMEOUT))?
                .doing(format!("connect a writer to {server}"))?;
            let requests = format!("INCR {key}:{n}\r\nINCR {key}:all\r\n");
            let stop = Arc::clone(&stop);
            all.threads.push(thread::spawn(move || {
                write_and_check(&stream, &requests, &stop).map_err(|e| format!("writer {n}: {e}"))
            }));
        }
        Ok(all)
    }

    /// Ends them and compares. Returns the number of confirmed writes.
    ///
    /// # Errors
    /// [`Error::Protocol`] if a writer saw an error, or the store does not hold what the writers
    /// were told.
    ///
    /// # Panics
    /// If a writer did.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        let wrong = |said: String| Error::Protocol { what: "the store".into(), said };
        let mut told = Vec::new();
        for thread in self.threads.drain(..) {
            told.push(thread.join().expect("a writer does not panic").map_err(wrong)?);
        }
        let mut ask = self.connect()?;
        let mut holds = |key: String| -> Result<u64> {
            let value = ask.bulk(&format!("GET {key}\r\n")).doing("read a counter")?;
            let number = value.as_deref().unwrap_or("0").parse();
            number.map_err(|_| wrong(format!("{key} holds {value:?}")))
        };
        for (n, told) in told.iter().enumerate() {
            let found = holds(format!("{}:{n}", self.key))?;
            if found != *told {
                return Err(wrong(format!(
                    "writer {n} was told of {told} writes; there are {found}"
                )));
            }
        }
        let (sum, found) = (told.iter().sum::<u64>(), holds(format!("{}:all", self.key))?);
        if found != sum {
            return Err(wrong(format!("all writers were told of {sum} writes; there are {found}")));
        }
        Ok(2 * sum)
    }

    fn connect(&self) -> Result<Connection> {
        let server = self.server;
        self.ns.enter(move || Connection::open(server))?.doing(format!("connect to {server}"))
    }
}

/// Keeps [`DEPTH`] rounds in flight until told to stop, then waits for the last answers. Returns
/// the number of rounds.
fn write_and_check(
    stream: &TcpStream,
    requests: &str,
    stop: &AtomicBool,
) -> std::result::Result<u64, String> {
    let io = |e: std::io::Error| e.to_string();
    stream.set_nodelay(true).map_err(io)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
    let (mut answers, mut to) = (BufReader::new(stream), stream);
    to.write_all(requests.repeat(DEPTH as usize).as_bytes()).map_err(io)?;
    let (mut sent, mut done, mut shared) = (DEPTH, 0_u64, 0_u64);
    let mut line = String::new();
    let mut next = || -> std::result::Result<u64, String> {
        line.clear();
        if answers.read_line(&mut line).map_err(io)? == 0 {
            return Err("the connection was closed".into());
        }
        let number = line.trim_end().strip_prefix(':').and_then(|n| n.parse().ok());
        number.ok_or_else(|| format!("answered {line:?} to INCR"))
    };
    while done < sent {
        let own = next()?;
        done += 1;
        if own != done {
            return Err(format!("its counter is {own}, not {done}"));
        }
        let all = next()?;
        if all <= shared {
            return Err(format!("the shared counter went from {shared} to {all}"));
        }
        shared = all;
        if !stop.load(Relaxed) {
            to.write_all(requests.as_bytes()).map_err(io)?;
            sent += 1;
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashMap, net::TcpListener, sync::Mutex};

    /// A store for a few connections that executes increment number `spoiled` of the shared counter
    /// twice, if given.
    fn store(ns: &Namespace, spoiled: Option<u64>) -> SocketAddr {
        let listener = ns.enter(|| TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::new(Mutex::new(HashMap::<String, u64>::new()));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let counters = Arc::clone(&counters);
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    for line in BufReader::new(&stream).lines() {
                        let Ok(line) = line else { return };
                        let (verb, key) = line.split_once(' ').unwrap();
                        let mut counters = counters.lock().unwrap();
                        let n = counters.entry(key.to_owned()).or_default();
                        let answer = match verb {
                            "INCR" => {
                                *n += 1;
                                if key.ends_with(":all") && Some(*n) == spoiled {
                                    *n += 1;
                                }
                                format!(":{n}\r\n")
                            }
                            "GET" => format!("${}\r\n{n}\r\n", n.to_string().len()),
                            _ => {
                                *n = 0;
                                ":1\r\n".to_owned()
                            }
                        };
                        drop(counters);
                        if (&stream).write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn a_doubled_write_is_detected_and_a_correct_store_passes() {
        let ns = match Namespace::new("store") {
            Ok(ns) => ns,
            Err(e) => return crate::skipped("the writers' own test", e),
        };
        for (spoiled, good) in [(None, true), (Some(100), false)] {
            let writers = Writers::start(&ns, store(&ns, spoiled), "w", 3).unwrap();
            let mut ask = writers.connect().unwrap();
            let count = |ask: &mut Connection| {
                ask.bulk("GET w:all\r\n").unwrap().unwrap().parse::<u64>().unwrap()
            };
            while count(&mut ask) < 200 {
                thread::yield_now();
            }
            match writers.stop() {
                Ok(n) => assert!(good && n >= 400, "{n}"),
                Err(e) => assert!(!good && e.to_string().contains("all writers"), "{e}"),
            }
        }
    }
}
