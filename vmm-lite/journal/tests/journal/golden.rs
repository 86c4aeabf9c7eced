//! A journal of version 1.0, as it was once written, stays readable, and is still written like
//! that.

use crate::common::dir;
use journal::{
    Manifest, Reader, Torn,
    format::{
        batch::{self, Encoder},
        names,
        resume::Registered,
        segment,
    },
    storage::sim::Disk,
};
use std::{collections::BTreeMap, fs, path::Path};

const ID: [u8; 16] = *b"0123456789abcdef";

fn manifest() -> Manifest {
    Manifest { id: ID, first: 5, created_ns: 1_796_000_000_000_000_000, identity: b"kv".to_vec() }
}

fn registered() -> Registered {
    let (size, taken_ns, resume) = (4, 1_796_000_000_500_000_000, b"3 samples".to_vec());
    Registered { id: ID, position: 6, size, taken_ns, resume }
}

fn record(position: u64) -> Vec<u8> {
    match position {
        7..=9 => vec![position as u8; 200],
        _ => format!("record {position}").into_bytes(),
    }
}

fn payload(first: u64, last: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    (first..=last).for_each(|position| batch::push(&mut payload, &record(position)));
    payload
}

fn files() -> BTreeMap<String, Vec<u8>> {
    let mut encoder = Encoder::new(ID, true).unwrap();
    let mut one = segment::encode(&ID, 5).to_vec();
    one.extend_from_slice(encoder.batch(5, 2, 4, &payload(5, 6)));
    one.extend_from_slice(encoder.batch(7, 3, 6, &payload(7, 9)));
    one.extend_from_slice(&encoder.end(10, 9));
    let mut two = segment::encode(&ID, 10).to_vec();
    two.extend_from_slice(encoder.batch(10, 1, 9, &payload(10, 10)));
    // Half of a batch, and reserved space.
    two.extend_from_slice(&encoder.batch(11, 1, 10, &payload(11, 11))[..50]);
    two.resize(256, 0);
    BTreeMap::from([
        (names::MANIFEST.into(), manifest().encode()),
        (names::snapshot(6), b"VMVM".to_vec()),
        (names::resume(6), registered().encode()),
        (names::segment(5), one),
        (names::segment(10), two),
    ])
}

#[test]
fn a_journal_of_version_1_0_is_read_and_written_as_ever() {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/journal-1.0");
    let mut golden = BTreeMap::new();
    for entry in fs::read_dir(&place).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        golden.insert(name, fs::read(entry.path()).unwrap());
    }
    let reader = Reader::open_in(dir(&Disk::with_files(golden.clone()))).unwrap();
    assert_eq!(*reader.manifest(), manifest());
    assert_eq!((reader.first(), reader.ends_at()), (5, 10));
    assert_eq!(reader.torn(), Some(Torn { position: 11, bytes: 49 }));
    let [snapshot] = reader.snapshots() else { panic!("{:?}", reader.snapshots()) };
    let Registered { position, size, taken_ns, resume, .. } = registered();
    assert_eq!((snapshot.position, snapshot.size, snapshot.taken_ns), (position, size, taken_ns));
    assert_eq!(snapshot.resume, resume);
    let records: Vec<_> = reader.records_from(5).unwrap().map(Result::unwrap).collect();
    assert!(records.into_iter().eq((5..=10).map(|p| (p, record(p)))));

    // Another release of zstd may compress differently.
    let compressed = names::segment(5);
    for (name, content) in files() {
        let same = content == golden[&name] || name == compressed;
        assert!(same, "{name} is written differently: {content:02x?}");
    }
    let until = segment::HEADER + batch::HEADER + payload(5, 6).len();
    assert_eq!(files()[&compressed][..until], golden[&compressed][..until]);
}

/// Each field of the headers is where `docs/journal-format.md` says.
#[test]
fn fields_are_where_the_page_says() {
    let files = files();
    let long =
        |name: &str, at: usize| u64::from_le_bytes(files[name][at..at + 8].try_into().unwrap());
    let word =
        |name: &str, at: usize| u32::from_le_bytes(files[name][at..at + 4].try_into().unwrap());
    let (log, resume) = (names::segment(5), names::resume(6));
    for name in [names::MANIFEST, &log, &resume] {
        assert_eq!(files[name][8..12], [1, 0, 0, 0]);
        assert_eq!(files[name][16..32], ID);
    }
    for (name, header) in [(names::MANIFEST, 64), (&log, 64), (&resume, 72)] {
        assert_eq!(word(name, header - 4), crc32fast::hash(&files[name][..header - 4]));
    }
    assert_eq!((long(names::MANIFEST, 32), word(names::MANIFEST, 48)), (5, 2));
    assert_eq!(word(names::MANIFEST, 52), crc32fast::hash(b"kv"));
    assert_eq!((long(&resume, 32), long(&resume, 40), word(&resume, 56)), (6, 4, 9));
    assert_eq!(long(&log, 32), 5);
    assert_eq!(files[&log][64..68], *b"vmlb");
    assert_eq!((word(&log, 68), long(&log, 72), long(&log, 80)), (0, 5, 4));
    let length = payload(5, 6).len() as u32;
    assert_eq!((word(&log, 88), word(&log, 92), word(&log, 96)), (2, length, length));
    assert_eq!(word(&log, 100), crc32fast::hash(&payload(5, 6)));
    let sum = [&ID[..], &files[&log][64..108]].concat();
    assert_eq!(word(&log, 108), crc32fast::hash(&sum));
    // The second is compressed, and the end is the last thing.
    assert_eq!(word(&log, 112 + length as usize + 4), 1);
    let end = files[&log].len() - 48;
    assert_eq!((word(&log, end + 4), long(&log, end + 8), long(&log, end + 16)), (2, 10, 9));
}
