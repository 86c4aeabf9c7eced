//! Damage is found and named; only an interrupted write at the end is cut.

use crate::common::{append, dir, record, small};
use journal::{
    Error, Options, Reader, SyncPolicy, Torn, Writer,
    format::{batch, names, segment},
    storage::{Directory, sim::Disk},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Files = BTreeMap<String, Vec<u8>>;

/// A journal with a snapshot and several segments. `closed` or not, the writer is gone; nothing
/// that was appended is lost.
fn journal(last: u64, batch: u64, closed: bool) -> Files {
    let disk = Disk::new();
    let writer = Writer::create_in(dir(&disk), b"identity", 1, small(), drop).unwrap();
    disk.create(names::NEW_SNAPSHOT).unwrap().write_at(b"base", 0).unwrap();
    writer.commit_snapshot(0, b"resume").unwrap();
    append(&writer, 1, last, batch);
    writer.flush_now().unwrap();
    let files = disk.files();
    writer.close().unwrap();
    if closed { disk.files() } else { files }
}

/// Reads everything.
fn read(files: &Files) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let reader = open(files)?;
    reader.records_from(reader.first())?.collect()
}

fn open(files: &Files) -> Result<Reader, Error> {
    Reader::open_in(dir(&Disk::with_files(files.clone())))
}

fn segments(files: &Files) -> Vec<String> {
    files.keys().filter(|name| name.starts_with("log-")).cloned().collect()
}

/// Where the batches of a segment begin, and the first position of each.
fn batches(file: &[u8]) -> Vec<(usize, u64)> {
    let (mut at, mut found) = (segment::HEADER, Vec::new());
    while let Some(header) = file.get(at..at + batch::HEADER).filter(|h| h[..4] == batch::MAGIC) {
        found.push((at, u64::from_le_bytes(header[8..16].try_into().unwrap())));
        at += batch::HEADER + u32::from_le_bytes(header[32..36].try_into().unwrap()) as usize;
    }
    found
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_named() {
    let files = journal(100, 7, true);
    assert!(segments(&files).len() > 2);
    assert_eq!(read(&files).unwrap().len(), 100);
    for (name, content) in files.iter().filter(|(name, _)| !name.starts_with("snapshot")) {
        let batches = if name.starts_with("log-") { batches(content) } else { Vec::new() };
        for at in 0..content.len() {
            let mut files = files.clone();
            files.get_mut(name).unwrap()[at] ^= 1 << (at % 8);
            let result = read(&files);
            let end = batches.last().is_some_and(|(last, _)| at >= *last);
            if end && Some(name) == segments(&files).last() {
                // It looks like an end that was not written whole; no record is behind it.
                assert_eq!(result.unwrap().len(), 100);
                assert_eq!(open(&files).unwrap().torn().unwrap().position, 101);
                continue;
            }
            let Err(error) = result else { panic!("byte {at} of {name} is changed") };
            match (name.as_str(), &error) {
                // The version's own bits.
                (_, Error::Version { file, .. }) if (8..10).contains(&at) => {
                    assert_eq!(file, name);
                }
                (log, Error::Damaged { file, offset, position, .. }) => {
                    assert_eq!(file, log, "{error}");
                    let before = batches.iter().rev().find(|(begin, _)| *begin <= at);
                    let (begin, first) = before.copied().unwrap_or_default();
                    assert_eq!(*offset, begin as u64, "{error}");
                    assert!(end || begin == 0 || *position == Some(first), "{error}");
                }
                _ => panic!("{name}, byte {at}: {error}"),
            }
        }
    }
}

#[test]
fn missing_files_are_found() {
    let files = journal(60, 7, true);
    for name in files.keys().filter(|name| *name != "lock") {
        let mut fewer = files.clone();
        fewer.remove(name);
        let result = open(&fewer);
        if name.starts_with("resume") || Some(name) == segments(&files).last() {
            // The base is no longer registered, and the log from 1 on is whole; and whether there
            // was another segment nobody can tell.
            continue;
        }
        assert!(result.is_err(), "{name} is missing");
    }
    // With a snapshot behind it, the last segment is missed too.
    let disk = Disk::with_files(files.clone());
    let (writer, _) = Writer::open_in(dir(&disk), small(), drop).unwrap();
    disk.create(names::NEW_SNAPSHOT).unwrap();
    writer.commit_snapshot(60, b"").unwrap();
    drop(writer);
    let mut fewer = disk.files();
    for name in segments(&fewer).iter().rev().take(2) {
        fewer.remove(name);
    }
    let error = open(&fewer).err().unwrap().to_string();
    assert!(error.contains("the log ends before it"), "{error}");
    // Nor may a snapshot have another size.
    let mut longer = files;
    longer.get_mut(&names::snapshot(0)).unwrap().push(0);
    assert!(open(&longer).is_err());
}

#[test]
fn a_torn_tail_is_cut_wherever_the_write_was_interrupted() {
    let files = journal(40, 40, false);
    let name = segments(&files).pop().unwrap();
    let content = &files[&name];
    let (last, position) = *batches(content).last().unwrap();
    let end = content.iter().rposition(|b| *b != 0).unwrap() + 1;
    for at in last..end {
        let mut files = files.clone();
        let file = files.get_mut(&name).unwrap();
        // The space is reserved, or it is not.
        if at % 2 == 0 {
            file[at..].fill(0);
        } else {
            file.truncate(at);
        }
        let bytes = file.iter().rposition(|b| *b != 0).unwrap() + 1;
        let bytes = (bytes as u64).saturating_sub(last as u64);
        let torn = (bytes > 0).then_some(Torn { position, bytes });
        let reader = open(&files).unwrap();
        assert_eq!((reader.ends_at(), reader.torn()), (position - 1, torn), "cut at {at}");

        let disk = Disk::with_files(files);
        let (writer, recovered) = Writer::open_in(dir(&disk), small(), drop).unwrap();
        assert_eq!((recovered.ends_at, recovered.torn), (position - 1, torn));
        append(&writer, position, position + 3, 2);
        writer.close().unwrap();
        let read = read(&disk.files()).unwrap();
        assert!(read.into_iter().eq((1..=position + 3).map(|p| (p, record(p)))));
    }
}

#[test]
fn damage_to_synced_records_is_no_torn_tail() {
    let mut files = journal(40, 3, false);
    let name = segments(&files).pop().unwrap();
    let batches = batches(&files[&name]);
    assert!(batches.len() > 2);
    let (at, first) = batches[0];
    for (byte, value) in [(at + 60, 0xff), (at + 9, 0xff), (at, 0)] {
        let mut files = files.clone();
        files.get_mut(&name).unwrap()[byte] ^= value;
        if value == 0 {
            // As if it had never been written.
            files.get_mut(&name).unwrap()[at..batches[1].0].fill(0);
        }
        let error = open(&files).err().unwrap();
        let named = matches!(&error, Error::Damaged { file, offset, position, .. }
            if *file == name && *offset == at as u64 && *position == Some(first));
        assert!(named, "{error}");
        let error = Writer::open_in(dir(&Disk::with_files(files)), small(), drop).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
    }
    // Nothing was written behind the last one.
    let (at, first) = *batches.last().unwrap();
    files.get_mut(&name).unwrap()[at + 60] ^= 1;
    assert_eq!(open(&files).unwrap().torn().unwrap().position, first);
}

#[test]
fn a_closed_journal_that_was_never_synced_before_has_no_torn_tail_either() {
    let disk = Disk::new();
    let options = Options { sync: SyncPolicy::Never, ..Options::default() };
    let writer = Writer::create_in(dir(&disk), b"", 1, options, drop).unwrap();
    for position in 1..=9 {
        writer.append(position, &record(position)).unwrap();
    }
    writer.close().unwrap();
    let mut files = disk.files();
    let name = segments(&files).pop().unwrap();
    let (last, position) = batches(&files[&name]).into_iter().rev().nth(1).unwrap();
    files.get_mut(&name).unwrap()[last + batch::HEADER] ^= 1;
    let error = open(&files).err().unwrap();
    assert!(matches!(error, Error::Damaged { position: Some(p), .. } if p == position), "{error}");
}

#[test]
fn an_end_is_the_last_thing_in_a_segment() {
    let files = journal(100, 7, true);
    for name in segments(&files) {
        let end = files[&name].len() - batch::HEADER;
        for more in [files[&name][end..].to_vec(), vec![1]] {
            let mut files = files.clone();
            files.get_mut(&name).unwrap().extend(more);
            let error = read(&files).unwrap_err();
            let named = matches!(&error, Error::Damaged { file, offset, .. }
                if *file == name && *offset > end as u64);
            assert!(named, "{error}");
        }
    }
}

#[test]
fn batches_in_the_wrong_place_are_refused() {
    let files = journal(40, 3, true);
    let name = &segments(&files)[0];
    let content = &files[name];
    let batches = batches(content);
    let [a, b, c, ..] = batches[..] else { panic!("{batches:?}") };
    let gap = [&content[..b.0], &content[c.0..]].concat();
    let twice = [&content[..b.0], &content[a.0..]].concat();
    for (content, what) in [(gap, "where record 4 was expected"), (twice, "record 1 is where")] {
        let mut files = files.clone();
        files.insert(name.clone(), content);
        let error = read(&files).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(name), "{error}");
    }
    // Another journal's files do not fit, whatever their positions.
    let other = journal(40, 3, true);
    for name in files.keys().filter(|n| n.starts_with("log-") || n.starts_with("resume")) {
        let mut files = files.clone();
        files.insert(name.clone(), other[name].clone());
        assert!(read(&files).is_err(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_appended_is_read_from_any_position(
        records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 1..60),
        first in 1_u64..1000,
        batch in 1..20_usize,
        compress: bool,
        from: prop::sample::Index,
    ) {
        let disk = Disk::new();
        let options = journal::Options { compress, ..small() };
        let writer = Writer::create_in(dir(&disk), b"", first, options, drop).unwrap();
        for (n, record) in records.iter().enumerate() {
            writer.append_more(first + n as u64, record).unwrap();
            if n % batch == 0 {
                writer.flush_now().unwrap();
            }
        }
        let last = writer.close().unwrap();
        prop_assert_eq!(last, first + records.len() as u64 - 1);
        let reader = Reader::open_in(dir(&disk)).unwrap();
        prop_assert_eq!((reader.first(), reader.ends_at()), (first, last));
        let from = from.index(records.len() + 1);
        let read: Result<Vec<_>, _> = reader.records_from(first + from as u64).unwrap().collect();
        let expected: Vec<_> = (first..).zip(records).skip(from).collect();
        prop_assert_eq!(read.unwrap(), expected);
        prop_assert!(reader.records_from(first - 1).is_err());
        prop_assert!(reader.records_from(last + 2).is_err());
    }
}
