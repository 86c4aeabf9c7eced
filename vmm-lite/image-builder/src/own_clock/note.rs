//! The note in an image.

use memchr::memmem;
use object::{
    LittleEndian,
    elf::{FileHeader64, PT_NOTE},
    read::elf::{FileHeader, ProgramHeader},
};
use std::ops::Range;
use vmm_lite_interface::note::{OWN_CLOCK_SIZE, OWN_CLOCK_TYPE, OWNER};

/// Where the note's descriptor is in the file.
pub fn place(image: &[u8]) -> Option<Range<usize>> {
    let elf = FileHeader64::<LittleEndian>::parse(image).ok()?;
    let size = OWN_CLOCK_SIZE as u32;
    let words = [OWNER.len() as u32, size, OWN_CLOCK_TYPE];
    let mut header: Vec<u8> = words.into_iter().flat_map(u32::to_le_bytes).collect();
    header.extend(OWNER);
    header.resize(header.len().next_multiple_of(4), 0);
    elf.program_headers(LittleEndian, image).ok()?.iter().find_map(|segment| {
        if segment.p_type(LittleEndian) != PT_NOTE {
            return None;
        }
        let (offset, length) = segment.file_range(LittleEndian);
        let (begin, end) = (usize::try_from(offset).ok()?, offset.checked_add(length)?);
        let notes = image.get(begin..usize::try_from(end).ok()?)?;
        let at = memmem::find(notes, &header)? + header.len();
        (at + OWN_CLOCK_SIZE <= notes.len()).then(|| begin + at..begin + at + OWN_CLOCK_SIZE)
    })
}
