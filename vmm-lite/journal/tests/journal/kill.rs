//! SIGKILL at random moments, on the real file system.

use crate::common::record;
use fastrand::Rng;
use journal::{Event, Keep, Options, Reader, SyncPolicy, Writer};
use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Names the directory for the child.
const DIR: &str = "JOURNAL_KILL_DIR";

fn policy(n: u64) -> SyncPolicy {
    let every = SyncPolicy::Every(Duration::from_millis(1));
    [SyncPolicy::Always, every, SyncPolicy::Never][n as usize % 3]
}

/// The child: appends until it is killed, and prints what it was told.
#[test]
fn child() {
    let Some(dir) = env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let options = Options { segment_size: 256 << 10, ..Options::default() };
    let hook = |event| match event {
        Event::Written(position) => println!("written {position}"),
        Event::Started | Event::Durable(_) => {}
        Event::Failed(e) => panic!("{e}"),
    };
    let (writer, next) = match Reader::open(dir) {
        Ok(reader) => {
            let next = reader.ends_at() + 1;
            let options = Options { sync: policy(next), ..options };
            (Writer::open(dir, options, hook).unwrap().0, next)
        }
        // Killed before there was one.
        Err(_) => (Writer::create(dir, b"", 1, options, hook).unwrap(), 1),
    };
    println!("started");
    for n in next.. {
        writer.append(n, &record(n)).unwrap();
        if n % 500 == 0 {
            std::fs::write(writer.snapshot_path(), n.to_string()).unwrap();
            writer.commit_snapshot(n, b"").unwrap();
            println!("snapshot {n}");
            writer.prune(Keep::Snapshots(2)).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("journal");
    let mut rng = Rng::with_seed(11);
    let (mut written, mut snapshot) = (0, None);
    for _ in 0..15 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["kill::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(DIR, &dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // After so many lines: not after a time, so that there is always something to lose.
        let kill_after = rng.usize(1..400);
        let mut count = 0;
        let mut see = |line: &str| {
            let number = |what| line.rsplit_once(what).and_then(|(_, n)| n.parse::<u64>().ok());
            written = number("written ").map_or(written, |n| n.max(written));
            snapshot = number("snapshot ").or(snapshot);
        };
        for line in &mut lines {
            see(&line.unwrap());
            count += 1;
            if count == kill_after {
                child.kill().unwrap();
                break;
            }
        }
        assert_eq!(count, kill_after, "the child has ended by itself");
        // A last line may be incomplete: a smaller number, which is true all the same.
        lines.map_while(Result::ok).for_each(|line| see(&line));
        child.wait().unwrap();
        if written == 0 {
            continue;
        }
        let reader = Reader::open(&dir).unwrap();
        assert!(reader.ends_at() >= written, "{} of {written} are left", reader.ends_at());
        let newest = reader.snapshots().last();
        assert!(newest.map(|s| s.position) >= snapshot);
        if let Some(newest) = newest {
            let content = std::fs::read_to_string(&newest.path).unwrap();
            assert_eq!(content, newest.position.to_string());
        }
        let first = reader.first();
        for (n, found) in reader.records_from(first).unwrap().enumerate() {
            let position = first + n as u64;
            assert_eq!(found.unwrap(), (position, record(position)));
        }
    }
    let _ = writeln!(std::io::stderr(), "kill: {written} records were written");
    assert!(written > 100);
}
