//! After a power cut at any operation, everything that was durable can be read, nothing appears
//! that was not appended, and the journal can be written again.

use fastrand::Rng;
use journal::{
    Error, Event, Keep, Options, Reader, SyncPolicy, Writer,
    format::names,
    storage::{
        Directory,
        sim::{Disk, Fault},
    },
};
use proptest::prelude::*;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// The bytes of the record at `position`: any length, some compressible, different for each.
fn record(position: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(position);
    let length = rng.usize(0..900) / (1 + rng.usize(0..9));
    let alphabet = rng.choice([1, 4, 256]).unwrap();
    (0..length).map(|_| rng.u16(..alphabet) as u8).collect()
}

/// What the journal has promised so far.
#[derive(Default)]
struct Promised {
    created: bool,
    appended: u64,
    durable: Arc<AtomicU64>,
    /// The newest snapshot whose registration returned.
    snapshot: Option<u64>,
    /// Ones that may be there or not: their registration was interrupted.
    unsure: Vec<u64>,
    /// The oldest that may be left by an interrupted or finished prune.
    pruned: bool,
}

/// Does random things to a journal until the power is cut or the work is done.
fn work(
    disk: &Disk,
    promised: &mut Promised,
    options: Options,
    rng: &mut Rng,
) -> Result<(), Error> {
    let dir = Arc::new(disk.clone());
    let durable = Arc::clone(&promised.durable);
    let hook = move |event| {
        if let Event::Durable(position) = event {
            durable.fetch_max(position, SeqCst);
        }
    };
    let writer = if promised.created {
        Writer::open_in(dir, options, hook)?.0
    } else {
        match Writer::create_in(dir.clone(), b"identity", 1, options, hook.clone()) {
            // The power was cut behind the manifest.
            Err(Error::NotEmpty { .. }) => Writer::open_in(dir, options, hook)?.0,
            other => other?,
        }
    };
    promised.created = true;
    promised.appended = writer.appended();
    for _ in 0..rng.usize(1..12) {
        match rng.u8(..10) {
            0 => promised.durable.fetch_max(writer.flush_now()?, SeqCst),
            1 | 2 => snapshot(disk, &writer, promised, rng)?,
            3 => {
                promised.pruned = true;
                let keep = match rng.u8(..3) {
                    0 => Keep::Snapshots(rng.usize(..3)),
                    1 => Keep::Bytes(rng.u64(..20_000)),
                    _ => Keep::For(Duration::ZERO),
                };
                writer.prune(keep)?;
                0
            }
            _ => {
                for _ in 0..rng.u8(1..9) {
                    let (position, more) = (promised.appended + 1, rng.bool());
                    let bytes = record(position);
                    // One that fails was not appended, but an error may come late.
                    match more {
                        true => writer.append_more(position, &bytes)?,
                        false => writer.append(position, &bytes)?,
                    }
                    promised.appended = position;
                }
                // So that there are batches of many sizes.
                if rng.bool() { writer.flush_now()? } else { 0 }
            }
        };
    }
    if rng.bool() {
        promised.durable.fetch_max(writer.close()?, SeqCst);
    }
    Ok(())
}

fn snapshot(
    disk: &Disk,
    writer: &Writer,
    promised: &mut Promised,
    rng: &mut Rng,
) -> Result<u64, Error> {
    let at = promised.appended - rng.u64(..=promised.appended.min(3));
    if promised.snapshot.is_some_and(|newest| at <= newest) {
        return Ok(0);
    }
    promised.unsure.push(at);
    let file = disk.create(names::NEW_SNAPSHOT).or_else(|_| disk.open(names::NEW_SNAPSHOT));
    file.and_then(|file| file.write_at(&content(at), 0)).map_err(|_| Error::Closed)?;
    writer.commit_snapshot(at, &at.to_le_bytes())?;
    promised.snapshot = Some(at);
    Ok(0)
}

fn content(at: u64) -> Vec<u8> {
    format!("the VM after record {at}").into_bytes()
}

/// Checks what is left, and returns it in full.
fn check(disk: &Disk, promised: &Promised) -> Option<Reader> {
    let reader = match Reader::open_in(Arc::new(disk.clone())) {
        Ok(reader) => reader,
        Err(Error::NotAJournal(_)) if !promised.created => return None,
        Err(e) => panic!("{e}"),
    };
    let durable = promised.durable.load(SeqCst);
    assert!(reader.ends_at() >= durable, "{} of {durable} are left", reader.ends_at());
    assert!(reader.ends_at() <= promised.appended, "more than was appended");
    let mut next = reader.first();
    for found in reader.records_from(next).unwrap() {
        let (position, bytes) = found.unwrap();
        assert_eq!((position, bytes), (next, record(next)));
        next += 1;
    }
    assert_eq!(next, reader.ends_at() + 1);
    for snapshot in reader.snapshots() {
        assert!(promised.unsure.contains(&snapshot.position));
        assert_eq!(snapshot.resume, snapshot.position.to_le_bytes());
        let name = names::snapshot(snapshot.position);
        assert_eq!(disk.files()[&name], content(snapshot.position));
        // The VM can be brought from there to the end.
        reader.records_from(snapshot.position + 1).unwrap();
    }
    let newest = reader.snapshots().last().map(|s| s.position);
    assert!(newest >= promised.snapshot, "{newest:?}, not {:?}", promised.snapshot);
    assert!(promised.pruned || reader.first() == 1);
    Some(reader)
}

/// Works on a disk, cuts its power, and goes on with what is left, several times.
fn scenario(seed: u64, policy: SyncPolicy) {
    let mut rng = Rng::with_seed(seed);
    let options = Options {
        sync: policy,
        segment_size: rng.u64(4096..9000),
        buffer: rng.usize(1..20_000),
        compress: rng.bool(),
    };
    let (mut disk, mut promised) = (Disk::new(), Promised::default());
    for _ in 0..4 {
        disk.fault(rng.u64(..120), Fault::PowerCut);
        match work(&disk, &mut promised, options, &mut rng) {
            Ok(()) | Err(Error::Io { .. } | Error::Closed) => {}
            Err(e) => panic!("{e}"),
        }
        disk = disk.cut(&mut |n| rng.usize(..n));
        let Some(left) = check(&disk, &promised) else { continue };
        // What is left is durable, once it was opened again, and so is what was cut off.
        promised.created = true;
        promised.snapshot = left.snapshots().last().map(|s| s.position);
        promised.appended = left.ends_at();
    }
    // And without a cut.
    work(&disk, &mut promised, options, &mut rng).unwrap();
    check(&disk, &promised).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1500,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_durable_is_lost_by_a_power_cut(seed: u64, policy in 0..3) {
        let every = SyncPolicy::Every(Duration::from_micros(seed % 500));
        scenario(seed, [SyncPolicy::Always, every, SyncPolicy::Never][policy as usize]);
    }
}

/// The same work with a cut at each of its operations, and the two extremes of what is left.
#[test]
fn a_power_cut_at_each_operation_loses_nothing_durable() {
    let options = Options { segment_size: 4096, ..Options::default() };
    for seed in 0..6 {
        for at in 0.. {
            let (disk, mut promised) = (Disk::new(), Promised::default());
            disk.fault(at, Fault::PowerCut);
            let mut rng = Rng::with_seed(seed);
            let done = work(&disk, &mut promised, options, &mut rng).is_ok();
            for pick in [0, 1] {
                let disk = disk.cut(&mut |n| pick.min(n - 1));
                if check(&disk, &promised).is_some() {
                    let (writer, recovered) =
                        Writer::open_in(Arc::new(disk.clone()), options, drop).unwrap();
                    let next = recovered.ends_at + 1;
                    writer.append(next, &record(next)).unwrap();
                    assert_eq!(writer.close().unwrap(), next);
                    promised.appended = promised.appended.max(next);
                    check(&disk, &promised).unwrap();
                }
            }
            if done && disk.operations() < at {
                break;
            }
        }
    }
}
