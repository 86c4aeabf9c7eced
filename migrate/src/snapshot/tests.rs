use super::*;
use crate::PAGE;
use proptest::prelude::*;

/// A file with these pages, each filled with its byte; 0 marks a zero page.
fn file(pages: u64, content: &[(u64, u8)], base: Option<Base>) -> Vec<u8> {
    let mut index = IndexBuilder::new(pages);
    let mut data = Vec::new();
    for &(page, byte) in content {
        if byte == 0 {
            index.set(page, if base.is_some() { Content::Zero } else { Content::Absent });
        } else {
            let mut bytes = [byte; PAGE];
            bytes[..8].copy_from_slice(&page.to_le_bytes());
            let slot = (data.len() / PAGE) as u32;
            index.set(page, Content::Data { slot, checksum: crc32fast::hash(&bytes) });
            data.extend(bytes);
        }
    }
    let notes = Notes { taken_ns: 7, pages_zero: 1, pages_dont_care: 2, quiescent: true };
    let data_pages = (data.len() / PAGE) as u64;
    let (header, tail) = finish([9; 16], base, &index, data_pages, b"who", b"what", notes).unwrap();
    [header.encode().as_slice(), &data, &tail].concat()
}

fn opened(bytes: &[u8]) -> Result<Reader<&[u8]>, Error> {
    let reader = Reader::open(bytes)?;
    reader.verify()?;
    Ok(reader)
}

const BASE: Base = Base { id: [3; 16], checksum: 5 };

#[test]
fn what_is_written_is_read() {
    let content = [(0, 1), (511, 2), (512, 3), (1400, 0), (1499, 4)];
    let bytes = file(1500, &content, Some(BASE));
    let reader = opened(&bytes).unwrap();
    assert_eq!((reader.identity(), reader.state()), (&b"who"[..], &b"what"[..]));
    assert_eq!(reader.header().base, Some(BASE));
    assert_eq!(reader.header().notes.unwrap().pages_dont_care, 2);
    let mut found = Vec::new();
    reader
        .each(|page, content, bytes| {
            let mut alone = [1; PAGE];
            reader.page(page, content, &mut alone)?;
            assert_eq!(&alone, bytes);
            found.push((page, bytes[PAGE - 1]));
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(found, content);
    let block = reader.block(1).unwrap();
    assert_eq!(block.content(513), Content::Absent);
    assert_eq!(block.content(0), Content::Absent, "of another group");
    assert!(reader.block(3).is_err());
}

#[test]
fn versions_are_told_apart() {
    let mut bytes = file(600, &[(1, 1)], None);
    let as_version = |bytes: &mut Vec<u8>, at: usize, n: u16| {
        bytes[at..at + 2].copy_from_slice(&n.to_le_bytes());
        let sum = crc32fast::hash(&bytes[..HEADER_SIZE - 4]);
        bytes[HEADER_SIZE - 4..HEADER_SIZE].copy_from_slice(&sum.to_le_bytes());
    };
    as_version(&mut bytes, 10, 0);
    assert_eq!(opened(&bytes).unwrap().header().notes, None);
    as_version(&mut bytes, 10, MINOR + 9);
    assert!(opened(&bytes).unwrap().header().notes.is_some(), "what was added is passed over");
    as_version(&mut bytes, 8, MAJOR + 1);
    let Err(error @ Error::Major(2)) = opened(&bytes) else { panic!() };
    assert!(error.to_string().contains("format version 2"), "{error}");
    assert!(matches!(opened(b"ELF"), Err(Error::Magic)));
    assert!(matches!(opened(b""), Err(Error::Magic)));
    assert!(matches!(opened(&bytes[..100]), Err(Error::Size { .. })));
}

#[test]
fn a_whole_file_has_no_zero_marks_and_no_places_past_its_end() {
    let mut index = IndexBuilder::new(600);
    index.set(5, Content::Zero);
    let build = |index: &IndexBuilder| {
        let (header, tail) = finish([0; 16], None, index, 0, b"", b"", Notes::default()).unwrap();
        [header.encode().as_slice(), &tail].concat()
    };
    assert!(matches!(opened(&build(&index)), Err(Error::Broken(_))));
    let mut index = IndexBuilder::new(600);
    index.set(5, Content::Data { slot: 0, checksum: 0 });
    assert!(matches!(opened(&build(&index)), Err(Error::Broken(_))));
    index.set(600, Content::Zero);
    assert_eq!(index.get(600), Content::Absent, "a page outside the memory");
}

/// Otherwise a small file could take as long to read as the largest memory.
#[test]
fn data_is_named_once() {
    let mut index = IndexBuilder::new(600);
    let bytes = [7; PAGE];
    let content = Content::Data { slot: 0, checksum: crc32fast::hash(&bytes) };
    let build = |index: &IndexBuilder| {
        let (header, tail) = finish([0; 16], None, index, 1, b"", b"", Notes::default()).unwrap();
        [header.encode().as_slice(), &bytes, &tail].concat()
    };
    index.set(5, content);
    assert!(opened(&build(&index)).is_ok());
    index.set(6, content);
    assert!(matches!(opened(&build(&index)), Err(Error::Broken(_))));
}

#[test]
fn every_truncation_is_found() {
    let bytes = file(1500, &[(0, 1), (700, 2)], None);
    for len in 0..bytes.len() {
        assert!(opened(&bytes[..len]).is_err(), "{len} of {}", bytes.len());
    }
    assert!(opened(&[&bytes[..], &[0]].concat()).is_err(), "something behind the end");
}

#[test]
fn every_bit_of_the_head_and_the_tail_counts() {
    let good = file(1500, &[(0, 1), (700, 2), (1401, 0)], Some(BASE));
    let page = HEADER_SIZE..HEADER_SIZE + 2 * PAGE;
    for at in (0..good.len()).filter(|at| !page.contains(at) || at % 97 == 0) {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(opened(&bytes).is_err(), "bit {bit} of byte {at}");
        }
    }
}

proptest! {
    #[test]
    fn any_flipped_bit_is_found(
        content in prop::collection::btree_map(0..1500_u64, any::<u8>(), 0..12),
        whole in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let content: Vec<_> = content.into_iter().collect();
        let mut bytes = file(1500, &content, (!whole).then_some(BASE));
        prop_assert!(opened(&bytes).is_ok());
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        prop_assert!(opened(&bytes).is_err());
    }

    /// Whatever a hostile file contains under right checksums, the reader refuses or reads it, and
    /// never holds more than the limits allow.
    #[test]
    fn no_file_makes_the_reader_panic_or_exceed_its_limits(
        changes in prop::collection::vec((8..200_usize, any::<u8>()), 1..8),
        table in prop::collection::vec(any::<u8>(), 48),
        keep_table in any::<bool>(),
    ) {
        let mut bytes = file(1500, &[(0, 1), (700, 2), (1401, 0)], Some(BASE));
        let header = Header::decode(bytes[..HEADER_SIZE].try_into().unwrap()).unwrap();
        for (at, byte) in changes { bytes[at] = byte; }
        if !keep_table {
            let at = header.index.offset as usize;
            bytes[at..at + 48].copy_from_slice(&table);
            let sum = crc32fast::hash(&table);
            bytes[88 + 16..88 + 20].copy_from_slice(&sum.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[..HEADER_SIZE - 4]);
        bytes[HEADER_SIZE - 4..HEADER_SIZE].copy_from_slice(&sum.to_le_bytes());
        let _ = opened(&bytes);
    }

    #[test]
    fn noise_is_no_snapshot(noise in prop::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(opened(&noise).is_err());
    }
}
