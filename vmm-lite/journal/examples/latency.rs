//! Measures a journal on the file system of a directory: how long a record takes from `append`
//! until the hook is told that it is durable, and how many records are synced per second.
//!
//! `cargo run --release -p vmm-lite-journal --example latency -- DIR`

use journal::{Event, Options, Writer};
use std::{
    env,
    error::Error,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

/// Bytes of a record: about what one request of a key-value store takes.
const RECORD: usize = 120;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = env::args_os().nth(1).ok_or("which directory?")?;
    let place = tempfile::tempdir_in(Path::new(&dir))?;
    one_at_a_time(&place.path().join("one"))?;
    for waiting in [10, 50, 1000] {
        many(&place.path().join(waiting.to_string()), waiting)?;
    }
    Ok(())
}

fn record(position: u64) -> [u8; RECORD] {
    // Half of it is the same in all records, as in frames.
    std::array::from_fn(|n| if n < RECORD / 2 { n as u8 } else { (position >> (n % 7)) as u8 })
}

/// Each record waits for the one before it: what a client that sends one request at a time sees.
fn one_at_a_time(path: &Path) -> Result<(), Box<dyn Error>> {
    let (tell, told) = mpsc::channel();
    let writer = Writer::create(path, b"", 1, Options::default(), move |event| {
        if let Event::Durable(position) = event {
            tell.send((position, Instant::now())).ok();
        }
    })?;
    let mut took = Vec::new();
    for position in 1..=5000 {
        let began = Instant::now();
        writer.append(position, &record(position))?;
        let (durable, at) = told.recv()?;
        assert_eq!(durable, position);
        took.push(at - began);
    }
    took.sort_unstable();
    let at = |share: usize| took[took.len() * share / 100];
    let stats = writer.stats();
    println!(
        "one at a time: p50 {:?}, p90 {:?}, p99 {:?}; a sync {:?}; {} bytes a record",
        at(50),
        at(90),
        at(99),
        stats.syncing / stats.syncs as u32,
        stats.file_bytes / stats.records,
    );
    Ok(())
}

/// As many records wait at a time as clients would send requests.
fn many(path: &Path, waiting: u64) -> Result<(), Box<dyn Error>> {
    let durable = Arc::new(AtomicU64::new(0));
    let (seen, appender) = (Arc::clone(&durable), std::thread::current());
    let writer = Writer::create(path, b"", 1, Options::default(), move |event| {
        if let Event::Durable(position) = event {
            seen.store(position, SeqCst);
            appender.unpark();
        }
    })?;
    let began = Instant::now();
    let mut position = 0;
    while began.elapsed() < Duration::from_secs(2) {
        while position < durable.load(SeqCst) + waiting {
            position += 1;
            writer.append(position, &record(position))?;
        }
        std::thread::park();
    }
    writer.flush_now()?;
    let (time, stats) = (began.elapsed().as_secs_f64(), writer.stats());
    println!(
        "{waiting} at a time: {:.0} records/s, {:.0} syncs/s, {:.1} records a sync, {:?} a sync, \
         {} bytes a record",
        stats.records as f64 / time,
        stats.syncs as f64 / time,
        stats.records as f64 / stats.syncs as f64,
        stats.syncing / stats.syncs as u32,
        stats.file_bytes / stats.records,
    );
    Ok(())
}
