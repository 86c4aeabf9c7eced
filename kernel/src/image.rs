//! The image's own program headers: where its segments lie, and the template of thread-local
//! storage.

use core::slice;

const PT_LOAD: u32 = 1;
const PT_TLS: u32 = 7;
/// In the flags of a segment.
const EXECUTE: u32 = 1;

#[repr(C)]
struct Header {
    ident: [u8; 16],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    phoff: u64,
    shoff: u64,
    flags: u32,
    ehsize: u16,
    phentsize: u16,
    phnum: u16,
}

/// A program header of a 64-bit ELF.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    kind: u32,
    /// 1 execute, 2 write, 4 read.
    pub flags: u32,
    offset: u64,
    /// First address.
    pub address: u64,
    physical: u64,
    /// Bytes in the file.
    pub file_size: u64,
    /// Bytes in memory.
    pub memory_size: u64,
    /// Alignment.
    pub align: u64,
}

unsafe extern "C" {
    static __ehdr_start: Header;
}

fn headers() -> &'static [Segment] {
    // SAFETY: the linker defines `__ehdr_start` where the ELF header was loaded, with the program
    // headers that it describes.
    unsafe {
        let header = &raw const __ehdr_start;
        let at = header.cast::<u8>().add((*header).phoff as usize).cast::<Segment>();
        slice::from_raw_parts(at, usize::from((*header).phnum))
    }
}

/// The segments in memory.
pub fn segments() -> impl Iterator<Item = &'static Segment> {
    headers().iter().filter(|s| s.kind == PT_LOAD)
}

/// The template of thread-local storage, if the program has any.
pub fn tls() -> Option<&'static Segment> {
    headers().iter().find(|s| s.kind == PT_TLS)
}

/// Where the image ends, page aligned.
pub fn end() -> usize {
    let end = segments().map(|s| s.address + s.memory_size).max().unwrap_or(0) as usize;
    end.next_multiple_of(4096)
}

/// Whether `address` lies in an executable segment.
pub fn is_text(address: u64) -> bool {
    segments().any(|s| {
        s.flags & EXECUTE != 0 && (s.address..s.address + s.memory_size).contains(&address)
    })
}

/// The first byte of the instruction at `address`, behind its prefixes; `None` outside of the
/// image's text.
pub fn instruction_at(address: u64) -> Option<u8> {
    (address..address + 4)
        .take_while(|at| is_text(*at))
        // SAFETY: text segments are mapped readable.
        .map(|at| unsafe { core::ptr::with_exposed_provenance::<u8>(at as usize).read() })
        // Operand size, repeat, REX.
        .find(|byte| !matches!(byte, 0x66 | 0xf2 | 0xf3 | 0x40..=0x4f))
}
