//! The ELF notes of an image.
//!
//! Section `.note.vmm_lite`, owner [`OWNER`]. Type [`TYPE`]: the interface version, descriptor
//! [`ImageNote`]. Type [`OWN_CLOCK_TYPE`]: instructions by which the program itself reads clocks or
//! random numbers, descriptor [`OwnClockNote`]; the kernel reserves it, and `vmm-lite build` fills
//! it in. Numbers are little endian.

/// Owner name of the note, with its NUL.
pub const OWNER: &[u8; 9] = b"vmm-lite\0";
/// Type of the note.
pub const TYPE: u32 = 1;

/// Descriptor of the note: three 32-bit words.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageNote {
    /// [`INTERFACE_VERSION`](crate::INTERFACE_VERSION) at the time of the build.
    pub interface_version: u32,
    /// Memory that the kernel needs beyond the image's own segments to start at all, in KiB.
    pub min_free_kib: u32,
    /// 0; reserved.
    pub reserved: u32,
}

impl ImageNote {
    /// Size of the descriptor, in bytes.
    pub const SIZE: usize = 12;

    /// Decodes a descriptor; `None` if it is too short. Longer ones come from newer minor versions.
    #[must_use]
    pub fn from_bytes(desc: &[u8]) -> Option<Self> {
        let word =
            |i: usize| Some(u32::from_le_bytes(desc.get(i * 4..i * 4 + 4)?.try_into().ok()?));
        Some(Self { interface_version: word(0)?, min_free_kib: word(1)?, reserved: word(2)? })
    }
}

/// Type of the note about the program's own clock readings.
pub const OWN_CLOCK_TYPE: u32 = 2;
/// Size of its descriptor, in bytes.
pub const OWN_CLOCK_SIZE: usize = 1024;

/// Descriptor of the note of type [`OWN_CLOCK_TYPE`]: a count (u32), and UTF-8 text, padded with
/// zeros to [`OWN_CLOCK_SIZE`].
///
/// A program that takes such values from the CPU by itself does not do the same again when it is
/// replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnClockNote<'a> {
    /// How many instructions there are; `None`: nobody has looked.
    pub count: Option<u32>,
    /// The first of them, one `FUNCTION+OFFSET: INSTRUCTION` a line.
    pub first: &'a str,
}

impl<'a> OwnClockNote<'a> {
    /// In the place of the count while nobody has looked.
    pub const UNKNOWN: u32 = u32::MAX;

    /// Decodes a descriptor; `None` if it is too short for a count. Text that is not UTF-8 counts
    /// as none.
    #[must_use]
    pub fn from_bytes(desc: &'a [u8]) -> Option<Self> {
        let (count, text) = desc.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count);
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        let first = core::str::from_utf8(&text[..end]).unwrap_or_default();
        Some(Self { count: (count != Self::UNKNOWN).then_some(count), first })
    }

    /// The descriptor, with as many whole lines of the text as fit.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; OWN_CLOCK_SIZE] {
        let mut desc = [0; OWN_CLOCK_SIZE];
        desc[..4].copy_from_slice(&self.count.unwrap_or(Self::UNKNOWN).to_le_bytes());
        let mut end = 4;
        for line in self.first.split_inclusive('\n') {
            let Some(place) = desc.get_mut(end..end + line.len()) else { break };
            place.copy_from_slice(line.as_bytes());
            end += line.len();
        }
        desc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_clock_readings_are_read_back_in_whole_lines() {
        for (count, first) in [(None, ""), (Some(0), ""), (Some(2), "a+0x1: rdtsc\nb: rdrand\n")] {
            let note = OwnClockNote { count, first };
            assert_eq!(OwnClockNote::from_bytes(&note.to_bytes()), Some(note));
        }
        let line = "0123456789012345678\n";
        let mut long = [0; 20 * 60];
        long.chunks_mut(20).for_each(|place| place.copy_from_slice(line.as_bytes()));
        let first = core::str::from_utf8(&long).unwrap();
        let bytes = OwnClockNote { count: Some(60), first }.to_bytes();
        let read = OwnClockNote::from_bytes(&bytes).unwrap();
        assert_eq!((read.count, read.first), (Some(60), &first[..51 * 20]));
        assert_eq!(OwnClockNote::from_bytes(&[0; 3]), None);
        let garbled = OwnClockNote::from_bytes(&[1, 0, 0, 0, 0xff]);
        assert_eq!(garbled, Some(OwnClockNote { count: Some(1), first: "" }));
    }
}
