//! Journals, before any record reaches a guest.
//!
//! Input: a byte whose bit 0 says whether checksums and lengths are corrected, and then files. Each
//! has a byte for its kind, its position (a byte), its length (two bytes), and its content.

use journal::{
    Options, Reader, Writer,
    format::{batch, names},
    storage::sim::Disk,
};
use std::{collections::BTreeMap, sync::Arc};

/// Size of what begins a file, and where its journal's id is.
const START: usize = 32;
const ID: std::ops::Range<usize> = 16..32;
/// Size of the headers of manifests and segments, and of what registers a snapshot.
const HEADER: usize = 64;
const RESUME: usize = 72;

/// A journal that opens has records without a gap, unless one of its segments is found to be
/// damaged; and it can be written further, whatever is at its end.
pub fn check(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let mut files = files(rest);
    if flags & 1 == 1 {
        repair(&mut files);
    }
    let disk = Disk::with_files(files);
    let reader = match Reader::open_in(Arc::new(disk.clone())) {
        Ok(reader) => reader,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            let opened = Writer::open_in(Arc::new(disk), Options::default(), drop);
            return assert!(opened.is_err(), "it cannot be read, and it can be written");
        }
    };
    let (first, last) = (reader.first(), reader.ends_at());
    assert!(reader.snapshots().iter().all(|snapshot| snapshot.position <= last));
    let Some(read) = read(&reader) else { return };
    assert_eq!(read, last + 1 - first);

    let options = Options { segment_size: 4096, ..Options::default() };
    let (writer, recovered) =
        Writer::open_in(Arc::new(disk.clone()), options, drop).expect("what can be read");
    assert_eq!((recovered.ends_at, recovered.torn), (last, reader.torn()));
    writer.append(last + 1, b"one more").expect("memory takes it");
    assert_eq!(writer.close().expect("memory takes it"), last + 1);
    let again = Reader::open_in(Arc::new(disk)).expect("what was written");
    assert_eq!((again.first(), again.ends_at(), again.torn()), (first, last + 1, None));
    assert_eq!(self::read(&again), Some(read + 1), "records were lost");
}

/// Number of records, or `None` where there is damage in a segment.
fn read(reader: &Reader) -> Option<u64> {
    let mut next = reader.first();
    for found in reader.records_from(next).expect("the first record, or the one that comes next") {
        match found {
            Ok((position, _)) => assert_eq!(position, next),
            Err(e) => {
                assert!(!e.to_string().is_empty());
                return None;
            }
        }
        next += 1;
    }
    Some(next - reader.first())
}

fn files(mut rest: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    while let Some(([kind, position, a, b], behind)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*a, *b])).min(behind.len());
        let (content, behind) = behind.split_at(length);
        rest = behind;
        let position = u64::from(*position);
        let name = match kind % 5 {
            0 => names::MANIFEST.into(),
            1 => names::segment(position),
            2 => names::resume(position),
            3 => names::snapshot(position),
            _ => names::unfinished(&names::segment(position)),
        };
        files.insert(name, content.to_vec());
    }
    files
}

/// Makes headers and batches right, as far as they lie in their files.
fn repair(files: &mut BTreeMap<String, Vec<u8>>) {
    let id: Vec<u8> = match files.get(names::MANIFEST).and_then(|file| file.get(ID)) {
        Some(id) => id.to_vec(),
        None => return,
    };
    let sizes: BTreeMap<_, _> = files.iter().map(|(n, f)| (n.clone(), f.len() as u64)).collect();
    for (name, file) in files {
        let manifest = name == names::MANIFEST;
        let resume = name.strip_prefix("resume-");
        let header = if resume.is_some() { RESUME } else { HEADER };
        if name.starts_with("snapshot-") || file.len() < header {
            continue;
        }
        file[ID].copy_from_slice(&id);
        let (length, sum) = if manifest { (48, 52) } else { (56, 60) };
        if manifest || resume.is_some() {
            let rest = (file.len() - header) as u32;
            let of = crc32fast::hash(&file[header..]);
            put(file, length, &rest.to_le_bytes());
            put(file, sum, &of.to_le_bytes());
        } else {
            batches(file, &id);
        }
        if let Some(size) = resume.and_then(|at| sizes.get(&format!("snapshot-{at}"))) {
            put(file, START + 8, &size.to_le_bytes());
        }
        let of = crc32fast::hash(&file[..header - 4]);
        put(file, header - 4, &of.to_le_bytes());
    }
}

fn batches(file: &mut [u8], id: &[u8]) {
    let mut at = HEADER;
    while at + batch::HEADER <= file.len() && file[at..].starts_with(&batch::MAGIC) {
        let (begin, stored) = (at + batch::HEADER, word(file, at + 32) as usize);
        let end = begin.saturating_add(stored);
        if end > file.len() {
            return;
        }
        let sum = crc32fast::hash(&file[begin..end]);
        put(file, at + 36, &sum.to_le_bytes());
        let sum = crc32fast::hash(&[id, &file[at..at + 44]].concat());
        put(file, at + 44, &sum.to_le_bytes());
        at = end;
    }
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]])
}
