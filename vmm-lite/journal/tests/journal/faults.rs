//! Errors of the disk, one writer at a time, and what a writer refuses.

use crate::common::{append, dir, record, small};
use journal::{
    Error, Event, Keep, Options, Reader, SyncPolicy, Writer,
    format::names,
    prune_in,
    storage::{
        Directory,
        sim::{Disk, Fault},
    },
};
use std::{sync::mpsc, thread, time::Duration};

/// Reads everything, and checks that it is what was appended.
fn check(disk: &Disk) -> Reader {
    let reader = Reader::open_in(dir(disk)).unwrap();
    let mut next = reader.first();
    for found in reader.records_from(next).unwrap() {
        assert_eq!(found.unwrap(), (next, record(next)));
        next += 1;
    }
    assert_eq!(next, reader.ends_at() + 1);
    reader
}

#[test]
fn a_full_disk_stops_the_writer_and_it_goes_on_when_there_is_room() {
    let disk = Disk::new();
    let (tell, told) = mpsc::channel();
    let tell = move |event| tell.send(event).unwrap();
    let writer = Writer::create_in(dir(&disk), b"", 1, small(), tell).unwrap();
    disk.set_capacity(Some(disk.used() + 5000));
    let mut next = 1;
    let error = loop {
        match writer.append(next, &record(next)) {
            Ok(()) => next += 1,
            Err(e) => break e,
        }
    };
    assert!(error.is_full(), "{error}");
    assert!(writer.failure().is_some_and(|e| e.is_full()));
    assert!(told.iter().any(|event| matches!(event, Event::Failed(e) if e.is_full())));
    // It stays that way.
    assert!(writer.append(next, b"").unwrap_err().is_full());
    assert!(writer.flush_now().unwrap_err().is_full());
    assert!(check(&disk).ends_at() >= writer.durable());
    // There is not enough room yet.
    writer.retry();
    assert!(told.iter().any(|event| matches!(event, Event::Failed(e) if e.is_full())));

    disk.set_capacity(None);
    writer.retry();
    assert!(told.iter().any(|event| matches!(event, Event::Durable(_))));
    append(&writer, next, next + 20, 5);
    assert_eq!(writer.close().unwrap(), next + 20);
    assert_eq!(check(&disk).ends_at(), next + 20);
}

#[test]
fn after_any_error_the_journal_has_what_is_durable_and_can_be_opened_again() {
    for number in [libc::EIO, libc::ENOSPC] {
        for at in 0.. {
            let disk = Disk::new();
            disk.fault(at, Fault::Error(number));
            let Ok(writer) = Writer::create_in(dir(&disk), b"", 1, small(), drop) else { continue };
            let appended = (1..=40).take_while(|n| {
                writer.append_more(*n, &record(*n)).and_then(|()| writer.flush_now()).is_ok()
            });
            let appended = appended.count() as u64;
            let (durable, failed) = (writer.durable(), writer.failure().is_some());
            assert!(durable >= appended);
            assert_eq!(failed, appended < 40);
            // One that failed to be synced is still there while the power is on.
            let closed = writer.close();
            assert!(closed.is_err() || !failed);
            let reader = check(&disk);
            assert!((durable..=appended + 1).contains(&reader.ends_at()));
            // On another day.
            let disk = Disk::with_files(disk.files());
            let (writer, recovered) = Writer::open_in(dir(&disk), small(), drop).unwrap();
            append(&writer, recovered.ends_at + 1, 60, 9);
            assert_eq!(writer.close().unwrap(), 60);
            assert_eq!(check(&disk).ends_at(), 60);
            if !failed && closed.is_ok() {
                assert!(at > 80, "no error happened at operation {at}");
                break;
            }
        }
    }
}

#[test]
fn a_journal_on_a_full_disk_can_be_pruned_and_then_opened() {
    let disk = Disk::new();
    let writer = Writer::create_in(dir(&disk), b"", 1, small(), drop).unwrap();
    for n in [50, 100] {
        append(&writer, n - 49, n, 7);
        let _ = disk.create(names::NEW_SNAPSHOT);
        writer.commit_snapshot(n, b"").unwrap();
    }
    assert!(matches!(prune_in(&disk, Keep::Snapshots(1)), Err(Error::Locked(_))));
    writer.close().unwrap();
    disk.set_capacity(Some(disk.used() + 2000));
    assert!(Writer::open_in(dir(&disk), small(), drop).err().unwrap().is_full());
    let pruned = prune_in(&disk, Keep::Snapshots(1)).unwrap();
    assert!(pruned.snapshots == 1 && pruned.segments > 0 && pruned.bytes > 2100, "{pruned:?}");
    let (writer, recovered) = Writer::open_in(dir(&disk), small(), drop).unwrap();
    assert_eq!(recovered.ends_at, 100);
    append(&writer, 101, 102, 1);
    writer.close().unwrap();
    assert_eq!(check(&disk).ends_at(), 102);
}

#[test]
fn a_snapshot_that_cannot_be_registered_does_not_count() {
    let count = |disk: &Disk| Reader::open_in(dir(disk)).unwrap().snapshots().len();
    for at in 0.. {
        let disk = Disk::new();
        let writer = Writer::create_in(dir(&disk), b"", 1, small(), drop).unwrap();
        let new = disk.create(names::NEW_SNAPSHOT).unwrap();
        new.write_at(b"memory", 0).unwrap();
        disk.fault(disk.operations() + at, Fault::Error(libc::ENOSPC));
        let registered = writer.commit_snapshot(0, b"").is_ok();
        // Only a sync of the directory that fails leaves a doubt.
        assert!(count(&disk) == usize::from(registered) || at == 8, "operation {at}");
        if registered {
            assert_eq!(at, 9);
            break;
        }
        // Another one may be.
        let _ = disk.create(names::NEW_SNAPSHOT);
        writer.commit_snapshot(0, b"").unwrap();
        assert_eq!(count(&disk), 1);
    }
}

#[test]
fn files_that_were_not_finished_are_removed_when_a_journal_is_opened() {
    let disk = Disk::new();
    Writer::create_in(dir(&disk), b"", 1, small(), drop).unwrap().close().unwrap();
    let left = [names::snapshot(3), names::NEW_SNAPSHOT.into(), names::unfinished("journal")];
    for name in left.iter().chain([&"notes".to_owned()]) {
        disk.create(name).unwrap();
    }
    Writer::open_in(dir(&disk), small(), drop).unwrap();
    let files = disk.files();
    assert!(left.iter().all(|name| !files.contains_key(name)), "{:?}", files.keys());
    assert!(files.contains_key("notes"), "it is not the journal's");
}

#[test]
fn a_failed_sync_is_final() {
    let disk = Disk::new();
    let (tell, told) = mpsc::channel();
    let tell = move |event| tell.send(event).unwrap();
    let writer = Writer::create_in(dir(&disk), b"", 1, small(), tell).unwrap();
    // The write, and the sync.
    disk.fault(disk.operations() + 1, Fault::Error(libc::EIO));
    writer.append(1, b"one").unwrap();
    let failed = || told.iter().find_map(|e| if let Event::Failed(e) = e { Some(e) } else { None });
    assert!(failed().unwrap().to_string().contains("cannot sync log-"), "{:?}", writer.failure());
    writer.retry();
    assert!(failed().unwrap().to_string().contains("it has failed before"));
    assert_eq!((writer.written(), writer.durable()), (1, 0));
    assert!(writer.append(2, b"two").is_err());
    assert!(writer.close().is_err());
}

#[test]
fn records_that_do_not_follow_or_are_too_long_are_refused() {
    let disk = Disk::new();
    let writer = Writer::create_in(dir(&disk), b"", 7, small(), drop).unwrap();
    for wrong in [0, 6, 8] {
        let error = writer.append(wrong, b"").unwrap_err();
        assert!(matches!(error, Error::OutOfOrder { expected: 7, got } if got == wrong));
    }
    let most = journal::format::batch::RECORD_MAX;
    assert!(matches!(writer.append(7, &vec![1; most + 1]), Err(Error::TooLong { .. })));
    writer.append(7, &vec![1; most]).unwrap();
    writer.append(8, b"").unwrap();
    assert!(matches!(writer.commit_snapshot(9, b""), Err(Error::NoSuchPoint { .. })));
    assert!(matches!(writer.commit_snapshot(5, b""), Err(Error::NoSuchPoint { .. })));
    writer.close().unwrap();
    let reader = Reader::open_in(dir(&disk)).unwrap();
    let lengths = reader.records_from(7).unwrap().map(|r| r.unwrap().1.len());
    assert_eq!(lengths.collect::<Vec<_>>(), [most, 0]);
}

#[test]
fn one_writer_at_a_time_and_no_journal_in_a_directory_in_use() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("journal of kv");
    assert!(matches!(Reader::open(&path), Err(Error::NotAJournal(_))));
    assert!(Writer::open(&path, small(), drop).is_err());
    let writer = Writer::create(&path, b"kv", 1, small(), drop).unwrap();
    assert!(matches!(Writer::open(&path, small(), drop), Err(Error::Locked(_))));
    assert!(matches!(Writer::create(&path, b"", 1, small(), drop), Err(Error::NotEmpty { .. })));
    append(&writer, 1, 30, 4);
    assert_eq!(Reader::open(&path).unwrap().manifest().identity, b"kv");
    drop(writer);
    let (writer, recovered) = Writer::open(&path, small(), drop).unwrap();
    assert_eq!((recovered.ends_at, recovered.torn), (30, None));
    drop(writer);

    std::fs::write(place.path().join("notes"), "").unwrap();
    let error = Writer::create(place.path(), b"", 1, small(), drop).err().unwrap();
    assert!(error.to_string().contains("`notes`") || error.to_string().contains("journal of kv"));
    let error = Writer::open(place.path(), small(), drop).err().unwrap();
    assert!(matches!(error, Error::NotAJournal(_)));
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 2, "nothing was made there");
}

#[test]
fn append_blocks_while_the_buffer_is_full_and_counts_it() {
    let disk = Disk::new();
    let (go, wait) = mpsc::channel::<()>();
    let hook = move |event| {
        if matches!(event, Event::Written(_)) {
            let _ = wait.recv();
        }
    };
    let options = Options { buffer: 1000, ..small() };
    let writer = Writer::create_in(dir(&disk), b"", 1, options, hook).unwrap();
    thread::scope(|scope| {
        let appending = scope.spawn(|| {
            (1..=100).for_each(|n| writer.append(n, &[7; 100]).unwrap());
        });
        // The thread is held up at the first batch; nine more records fit into the buffer.
        while writer.appended() < 10 {
            thread::yield_now();
        }
        assert!(!appending.is_finished());
        drop(go);
        appending.join().unwrap();
    });
    writer.flush_now().unwrap();
    let stats = writer.stats();
    assert!(stats.stalls > 0 && stats.stalled > Duration::ZERO);
    assert_eq!((stats.records, stats.record_bytes), (100, 10_000));
    assert!(stats.batches < 100 && stats.file_bytes > 0 && stats.syncs > 0, "{stats:?}");
}

#[test]
fn what_is_appended_is_synced_in_time_without_being_asked_for() {
    let disk = Disk::new();
    let (tell, told) = mpsc::channel();
    let tell = move |event| tell.send(event).unwrap();
    let options =
        Options { sync: SyncPolicy::Every(Duration::from_millis(5)), ..Options::default() };
    let writer = Writer::create_in(dir(&disk), b"", 1, options, tell).unwrap();
    // The first time the thread may not sleep yet, and then it does.
    for n in 1..=20 {
        writer.append_more(n, b"nobody waits for it").unwrap();
        assert!(told.iter().any(|event| matches!(event, Event::Durable(durable) if durable == n)));
        assert_eq!(writer.durable(), n);
    }
    drop(writer);
    // A time that never comes.
    let options = Options { sync: SyncPolicy::Every(Duration::MAX), ..options };
    let (writer, _) = Writer::open_in(dir(&disk), options, drop).unwrap();
    writer.append(21, b"more").unwrap();
    assert_eq!(writer.close().unwrap(), 21);
}
