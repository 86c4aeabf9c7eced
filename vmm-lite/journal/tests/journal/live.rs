//! Reading while a writer is at work.

use crate::common::{append, dir, record, small};
use journal::{
    Error, Keep, Options, Reader, SyncPolicy, Writer,
    storage::{Directory, Lock, Stored, sim::Disk},
};
use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

#[test]
fn a_reader_sees_a_whole_journal_while_it_is_written_and_pruned() {
    let place = tempfile::tempdir().unwrap();
    let options = Options { sync: SyncPolicy::Never, ..small() };
    let writer = Writer::create(place.path(), b"", 1, options, drop).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reading = thread::spawn({
        let (done, path) = (Arc::clone(&done), place.path().to_owned());
        move || {
            let mut opened = 0;
            while !done.load(SeqCst) {
                let reader = Reader::open(&path).unwrap();
                let first = reader.first();
                for (n, found) in reader.records_from(first).unwrap().enumerate() {
                    match found {
                        Ok(found) => assert_eq!(found, (first + n as u64, record(found.0))),
                        // It was removed since.
                        Err(Error::Io { source, .. }) => {
                            assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
                        }
                        Err(e) => panic!("{e}"),
                    }
                }
                opened += 1;
            }
            opened
        }
    });
    for n in 1..=1500 {
        writer.append(n, &record(n)).unwrap();
        if n % 150 == 0 {
            std::fs::write(writer.snapshot_path(), "").unwrap();
            writer.commit_snapshot(n, b"").unwrap();
            writer.prune(Keep::Snapshots(2)).unwrap();
        }
    }
    done.store(true, SeqCst);
    assert!(reading.join().unwrap() > 0);
    writer.close().unwrap();
    let reader = Reader::open(place.path()).unwrap();
    let snapshots: Vec<_> = reader.snapshots().iter().map(|s| s.position).collect();
    assert_eq!(snapshots, [1350, 1500]);
    assert!((1250..=1351).contains(&reader.first()), "{}", reader.first());
}

/// A directory whose log is read once before a writer goes on, and then after.
struct GoesOn {
    before: Disk,
    after: Disk,
    read: Arc<AtomicBool>,
}

struct File {
    before: Box<dyn Stored>,
    after: Box<dyn Stored>,
    /// Whether it has been read, if it is of the log.
    read: Option<Arc<AtomicBool>>,
}

impl Stored for File {
    fn size(&self) -> io::Result<u64> {
        self.after.size()
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        match &self.read {
            Some(read) if !read.swap(true, SeqCst) => self.before.read_at(to, offset),
            _ => self.after.read_at(to, offset),
        }
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Directory for GoesOn {
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.before.list()
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let (before, after) = (self.before.open(name)?, self.after.open(name)?);
        let read = name.starts_with("log-").then(|| Arc::clone(&self.read));
        Ok(Box::new(File { before, after, read }))
    }

    fn open_to_write(&self, _: &str) -> io::Result<Box<dyn Stored>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create(&self, _: &str) -> io::Result<Box<dyn Stored>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(None)
    }
}

/// The reader has seen that a batch is not there. Then it sees a later one that says that the first
/// is synced: that is so by now.
#[test]
fn a_batch_that_is_written_while_it_is_looked_for_is_no_damage() {
    let disk = Disk::new();
    let options = Options { segment_size: 1 << 20, ..Options::default() };
    let writer = Writer::create_in(dir(&disk), b"", 1, options, drop).unwrap();
    append(&writer, 1, 10, 1);
    let before = Disk::with_files(disk.files());
    append(&writer, 11, 15, 1);
    let after = Disk::with_files(disk.files());
    let read = Arc::default();
    let reader = Reader::open_in(Arc::new(GoesOn { before, after, read })).unwrap();
    assert_eq!((reader.ends_at(), reader.torn()), (15, None));
}
