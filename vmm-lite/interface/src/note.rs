//! The ELF note that states the interface version of an image.
//!
//! Section `.note.vmm_lite`, owner [`OWNER`], type [`TYPE`], descriptor [`ImageNote`] (little
//! endian).

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
