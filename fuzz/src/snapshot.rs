//! Snapshot files, before any of their content reaches a guest.
//!
//! Input: a byte whose bit 0 says whether sizes and checksums are corrected, the header's first
//! bytes, and the content behind the header.

use migrate::{
    PAGE,
    snapshot::{Content, Error, HEADER_SIZE, Header, Reader},
};

/// Bytes of the header that have a meaning; zeros fill the rest.
const FIELDS: usize = 188;
/// Pages of a memory that is checked completely.
const PAGES: u64 = 4096;
/// Where the header has the file's size, and its sections: index, identity, state.
const FILE_SIZE: usize = 64;
const SECTIONS: [usize; 3] = [88, 112, 136];
/// Where it has its data's offset.
const DATA: usize = 72;
/// Size of a block's bitmaps, which precede the entries of its pages.
const BITMAPS: usize = 128;

/// A file that opens is consistent, returns the same content by every method, and does not open
/// when its last byte is missing.
pub fn check(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let (fields, body) = rest.split_at(rest.len().min(FIELDS));
    let mut file = vec![0; HEADER_SIZE];
    file[..fields.len()].copy_from_slice(fields);
    file.extend_from_slice(body);
    if flags & 1 == 1 {
        repair(&mut file);
    }
    let reader = match Reader::open(&file[..]) {
        Ok(reader) => reader,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    let header = reader.header();
    assert_eq!(header.file_size, file.len() as u64);
    assert_eq!(&Header::decode(&header.encode()).expect("what was read can be written"), header);
    let short = &file[..file.len() - 1];
    assert!(Reader::open(short).is_err(), "the last byte is missing, and the file opens");
    if header.pages() <= PAGES {
        look(&reader, &file);
    }
}

fn look(reader: &Reader<&[u8]>, file: &[u8]) {
    let (header, mut before) = (reader.header(), None);
    let looked = reader.each(|number, content, bytes| {
        assert!(number < header.pages() && before.is_none_or(|n| n < number));
        before = Some(number);
        let block = reader.block((number / 512) as usize)?;
        assert_eq!(block.content(number), content);
        let mut alone = [1; PAGE];
        reader.page(number, content, &mut alone)?;
        assert_eq!(&alone, bytes);
        match content {
            Content::Absent => panic!("a page that the file does not have"),
            Content::Zero => assert!(header.base.is_some() && *bytes == [0; PAGE]),
            Content::Data { slot, checksum } => {
                assert!(u64::from(slot) < header.data_pages);
                let at = header.data_offset as usize + slot as usize * PAGE;
                assert_eq!(&file[at..at + PAGE], bytes);
                assert_eq!(crc32fast::hash(bytes), checksum);
            }
        }
        Ok::<_, Error>(())
    });
    assert_eq!(looked.is_ok(), reader.verify().is_ok());
}

/// Corrects sizes and checksums, from the pages upwards, as far as the parts lie in the file.
fn repair(file: &mut [u8]) {
    let size = file.len() as u64;
    put(file, FILE_SIZE, &size.to_le_bytes());
    let data = long(file, DATA);
    if let Some((table, end)) = section(file, SECTIONS[0]) {
        for entry in (table..end).step_by(16).filter(|entry| entry + 16 <= end) {
            let length = u64::from(word(file, entry + 8));
            let Some((block, end)) = range(file, long(file, entry), length) else { continue };
            for place in (block + BITMAPS..end).step_by(8).filter(|place| place + 8 <= end) {
                let at = data.saturating_add(u64::from(word(file, place)) * PAGE as u64);
                if let Some((at, end)) = range(file, at, PAGE as u64) {
                    let sum = crc32fast::hash(&file[at..end]);
                    put(file, place + 4, &sum.to_le_bytes());
                }
            }
            let sum = crc32fast::hash(&file[block..end]);
            put(file, entry + 12, &sum.to_le_bytes());
        }
    }
    for at in SECTIONS {
        if let Some((start, end)) = section(file, at) {
            let sum = crc32fast::hash(&file[start..end]);
            put(file, at + 16, &sum.to_le_bytes());
        }
    }
    let sum = crc32fast::hash(&file[..HEADER_SIZE - 4]);
    put(file, HEADER_SIZE - 4, &sum.to_le_bytes());
}

/// A section that lies behind the header.
fn section(file: &[u8], at: usize) -> Option<(usize, usize)> {
    range(file, long(file, at), long(file, at + 8)).filter(|(start, _)| *start >= HEADER_SIZE)
}

fn range(file: &[u8], at: u64, length: u64) -> Option<(usize, usize)> {
    let end = usize::try_from(at.checked_add(length)?).ok()?;
    (end <= file.len()).then_some((at as usize, end))
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn word(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([file[at], file[at + 1], file[at + 2], file[at + 3]])
}

fn long(file: &[u8], at: usize) -> u64 {
    u64::from(word(file, at)) | u64::from(word(file, at + 4)) << 32
}
