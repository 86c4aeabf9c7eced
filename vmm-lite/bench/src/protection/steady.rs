//! A client that does not wait for answers: it writes at a steady rate on one connection, as a
//! connection does that many threads share.
//!
//! When a packet of it is lost with the primary, the ones after it make TCP repeat it at once. A
//! client that waits for its answer is silent, and its packet is repeated only when a timer of 200
//! ms has expired. So this one shows how soon the store answers again.

use std::{
    io::{self, BufRead, BufReader, ErrorKind, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use vmm_lite_lab::{Result, error::Doing, net::Namespace, vmm::TIMEOUT};

/// Between two writes.
const PACE: Duration = Duration::from_micros(500);

/// The client, running.
pub struct Steady {
    stop: Arc<AtomicBool>,
    writer: JoinHandle<io::Result<u64>>,
    reader: JoinHandle<io::Result<Vec<Instant>>>,
}

impl Steady {
    /// Connects from `ns` and starts.
    pub fn start(ns: &Namespace, store: SocketAddr) -> Result<Self> {
        let what = format!("connect to {store}");
        let stream =
            ns.enter(move || TcpStream::connect_timeout(&store, TIMEOUT))?.doing(&*what)?;
        stream.set_nodelay(true).doing(&*what)?;
        stream.set_read_timeout(Some(TIMEOUT)).doing(&*what)?;
        let answers = BufReader::new(stream.try_clone().doing(&*what)?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writer = std::thread::spawn(move || write(&stream, &stopped));
        let reader = std::thread::spawn(move || read(answers));
        Ok(Self { stop, writer, reader })
    }

    /// Ends it. Returns when each answer arrived.
    ///
    /// # Errors
    /// If the connection broke, or a write was not answered.
    pub fn stop(self) -> Result<Vec<Instant>> {
        self.stop.store(true, Relaxed);
        let written = self.writer.join().expect("it does not panic").doing("write steadily")?;
        let times = self.reader.join().expect("it does not panic").doing("read answers")?;
        if times.len() as u64 == written {
            return Ok(times);
        }
        let said = format!("{} answers to {written} writes", times.len());
        Err(io::Error::new(ErrorKind::InvalidData, said)).doing("write steadily")
    }
}

fn write(mut stream: &TcpStream, stop: &AtomicBool) -> io::Result<u64> {
    let mut written = 0;
    while !stop.load(Relaxed) {
        stream.write_all(b"SET steady VXK\r\n")?;
        written += 1;
        // The rate of the load.
        std::thread::sleep(PACE);
    }
    // The store answers what it has, and closes.
    stream.shutdown(Shutdown::Write)?;
    Ok(written)
}

fn read(mut answers: BufReader<TcpStream>) -> io::Result<Vec<Instant>> {
    let (mut times, mut line) = (Vec::new(), String::new());
    loop {
        line.clear();
        if answers.read_line(&mut line)? == 0 {
            return Ok(times);
        }
        if line != "+OK\r\n" {
            return Err(io::Error::new(ErrorKind::InvalidData, line));
        }
        times.push(Instant::now());
    }
}
