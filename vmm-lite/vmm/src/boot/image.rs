//! Images: the checks before anything of one reaches a guest.

use super::OwnClock;
use crate::memory::{self, PAGE, Writable};
use linux_loader::loader::{KernelLoader, elf::Elf};
use object::{
    LittleEndian,
    elf::{ELFCLASS64, EM_X86_64, FileHeader64, PT_LOAD, PT_NOTE},
    read::{
        ReadCache, ReadRef,
        elf::{FileHeader, ProgramHeader},
    },
};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
};
use vmm_lite_interface::{
    INTERFACE_VERSION,
    layout::IMAGE_BASE,
    note::{self, ImageNote, OwnClockNote},
};

/// Offset of the class in the ELF header.
const EI_CLASS: usize = 4;
/// Owner and type of the note with the PVH entry.
const PVH_OWNER: &[u8] = b"Xen";
const PVH_ENTRY: u32 = 18;

/// Why a file cannot be run.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's error.
        source: io::Error,
    },
    /// It is not an ELF file.
    #[error("{} is not an ELF file; make an image with `vmm-lite build`", .0.display())]
    NotElf(PathBuf),
    /// The file is truncated.
    #[error("{} is truncated: {what} lies past its end; build or copy it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// It is for another kind of CPU.
    #[error("{} is for another machine ({machine}), not 64-bit x86", path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// Its ELF machine.
        machine: String,
    },
    /// It is not a unikernel.
    #[error(
        "{} is an ELF file, but no vmm-lite image: build the program with `vmm-lite \
         build`", .0.display()
    )]
    NoNote(PathBuf),
    /// It was built for another interface.
    #[error(
        "{} was built for version {image} of the interface between guest and vmm-lite, this \
         vmm-lite has version {ours}; build it again with this \
         vmm-lite", path.display(), ours = INTERFACE_VERSION
    )]
    Interface {
        /// The file.
        path: PathBuf,
        /// The version it was built for.
        image: u32,
    },
    /// No PVH entry, or one outside the image.
    #[error("{} has no usable PVH entry; build it again with `vmm-lite build`", .0.display())]
    Entry(PathBuf),
    /// A segment at an invalid place.
    #[error(
        "{} has a segment at {address:#x}, {size} bytes long, outside of where images lie (from \
         {base:#x} to the end of memory)", path.display(), base = IMAGE_BASE
    )]
    Segment {
        /// The file.
        path: PathBuf,
        /// Guest-physical address of the segment.
        address: u64,
        /// Its length.
        size: u64,
    },
    /// Not enough memory to start.
    #[error(
        "{} needs at least {} MiB of memory to start, and was given {} MiB (see \
         --memory)", path.display(), needed.div_ceil(1 << 20), given >> 20
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes given.
        given: u64,
    },
    /// The file could not be copied into memory.
    #[error("cannot load {}", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// The loader's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// An image that passed the checks.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    file: File,
    entry: u64,
    /// End of its last segment.
    end: u64,
    note: ImageNote,
    own_clock: OwnClock,
}

impl Image {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// The file's error.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.into(), source };
        let mut file = files::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let found = Found::of(path, length, &ReadCache::new(&mut file))?;
        let note = found.note.ok_or_else(|| Error::NoNote(path.into()))?;
        if note.interface_version != INTERFACE_VERSION {
            return Err(Error::Interface { path: path.into(), image: note.interface_version });
        }
        let entry = found.entry.filter(|e| (IMAGE_BASE..found.end).contains(e));
        let entry = entry.ok_or_else(|| Error::Entry(path.into()))?;
        let own_clock = found.own_clock.unwrap_or_default();
        Ok(Self { path: path.into(), file, entry, end: found.end, note, own_clock })
    }

    /// The path at which it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file. Its position has no fixed meaning.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Guest-physical address of its PVH entry.
    #[must_use]
    pub fn entry(&self) -> u64 {
        self.entry
    }

    /// The version of the interface it was built for.
    #[must_use]
    pub fn interface_version(&self) -> u32 {
        self.note.interface_version
    }

    /// Clocks and random numbers of the CPU that its program reads by itself.
    #[must_use]
    pub fn own_clock(&self) -> &OwnClock {
        &self.own_clock
    }

    /// The least memory with which it can start, in bytes.
    #[must_use]
    pub fn memory_needed(&self) -> u64 {
        (self.end + u64::from(self.note.min_free_kib) * 1024)
            .next_multiple_of(memory::page_address(1))
            .max(2 * IMAGE_BASE)
    }

    /// Copies its segments into `ram`, which is zero.
    pub(super) fn load(&self, ram: Writable<'_>) -> Result<(), Error> {
        let (needed, given) = (self.memory_needed(), ram.size());
        if given < needed {
            return Err(Error::Memory { path: self.path.clone(), needed, given });
        }
        let failed = |source| Error::Load { path: self.path.clone(), source };
        let mut file = &self.file;
        file.seek(SeekFrom::Start(0)).map_err(|e| failed(e.into()))?;
        let mut file = file.try_clone().map_err(|e| failed(e.into()))?;
        Elf::load(ram.mmap(), None, &mut file, None).map_err(|e| failed(e.into()))?;
        Ok(())
    }
}

/// What the headers and notes state.
struct Found {
    entry: Option<u64>,
    end: u64,
    note: Option<ImageNote>,
    own_clock: Option<OwnClock>,
}

impl Found {
    fn of<'d, R: ReadRef<'d>>(path: &Path, length: u64, data: R) -> Result<Self, Error> {
        let truncated = |what| Error::Truncated { path: path.into(), what };
        let ident = data.read_bytes_at(0, length.min(20)).unwrap_or_default();
        if !ident.starts_with(b"\x7fELF") {
            return Err(Error::NotElf(path.into()));
        }
        let (Some(&class), Some(machine)) = (ident.get(EI_CLASS), ident.get(18..20)) else {
            return Err(truncated("the ELF header"));
        };
        let machine = u16::from_le_bytes([machine[0], machine[1]]);
        if class != ELFCLASS64.0 || machine != EM_X86_64.0 {
            let machine = match (class, machine) {
                (1, _) => "32-bit".to_owned(),
                (_, 183) => "AArch64".to_owned(),
                (_, 243) => "RISC-V".to_owned(),
                (_, n) => format!("ELF machine number {n}"),
            };
            return Err(Error::Machine { path: path.into(), machine });
        }
        let header =
            FileHeader64::<LittleEndian>::parse(data).map_err(|_| truncated("the ELF header"))?;
        let endian = LittleEndian;
        let segments = header
            .program_headers(endian, data)
            .map_err(|_| truncated("the program header table"))?;
        let mut found = Self { entry: None, end: 0, note: None, own_clock: None };
        for segment in segments {
            let (offset, file_size) = segment.file_range(endian);
            if offset.checked_add(file_size).is_none_or(|end| end > length) {
                return Err(truncated("a segment"));
            }
            match segment.p_type(endian) {
                PT_LOAD => {
                    let (address, size) = (segment.p_paddr(endian), segment.p_memsz(endian));
                    let end = address.checked_add(size);
                    let outside = address < IMAGE_BASE
                        || file_size > size
                        || end.is_none_or(|end| end > vmm_lite_interface::layout::MEMORY_MAX);
                    if outside {
                        return Err(Error::Segment { path: path.into(), address, size });
                    }
                    found.end = found.end.max(address + size);
                }
                PT_NOTE => found.read_notes(segment, data),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Malformed notes count as missing.
    fn read_notes<'d, R: ReadRef<'d>>(
        &mut self,
        segment: &object::elf::ProgramHeader64<LittleEndian>,
        data: R,
    ) {
        if segment.p_filesz(LittleEndian) > PAGE as u64 {
            return;
        }
        let Ok(Some(mut notes)) = segment.notes(LittleEndian, data) else { return };
        while let Ok(Some(note)) = notes.next() {
            let (owner, type_, desc) = (note.name(), note.n_type(LittleEndian).0, note.desc());
            if owner == PVH_OWNER && type_ == PVH_ENTRY {
                let entry = desc.first_chunk::<4>().map(|b| u64::from(u32::from_le_bytes(*b)));
                self.entry = self.entry.or(entry);
            } else if owner != &note::OWNER[..note::OWNER.len() - 1] {
                continue;
            } else if type_ == note::TYPE {
                self.note = self.note.or(ImageNote::from_bytes(desc));
            } else if type_ == note::OWN_CLOCK_TYPE && self.own_clock.is_none() {
                self.own_clock = OwnClockNote::from_bytes(desc).map(Into::into);
            }
        }
    }
}
