//! Images: the ELF file and its notes, before and while they are loaded.
//!
//! Input: the file.

use std::{
    fs::File,
    io::{Seek, Write},
    os::fd::AsRawFd,
    path::PathBuf,
};

use crate::memory::{MEMORY, with_ram};
use nix::sys::memfd::{MFdFlags, memfd_create};
use object::{
    LittleEndian,
    elf::{FileHeader64, PT_LOAD},
    read::elf::{FileHeader, ProgramHeader},
};
use vmm::{
    boot::{Image, Parameters, load},
    memory::{PAGE, Writable},
    vm::Symbols,
};
use vmm_lite_interface::{
    INTERFACE_VERSION,
    layout::{CMDLINE, CMDLINE_MAX, IMAGE_BASE, PAGE_SIZE, START_INFO},
};

/// A file is an image or refused; a loaded one fills its segments with the file's content, and
/// nothing else.
pub fn check(data: &[u8]) {
    let file = memfd(data);
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    if let Ok(symbols) = Symbols::of(&file) {
        for address in [0, IMAGE_BASE, u64::MAX] {
            let _ = symbols.name(address);
        }
    }
    let image = match Image::open(&path) {
        Ok(image) => image,
        Err(e) => return assert!(!e.to_string().is_empty()),
    };
    assert_eq!(image.interface_version(), INTERFACE_VERSION);
    assert!(image.entry() >= IMAGE_BASE);
    assert!(image.memory_needed() >= MEMORY && image.memory_needed().is_multiple_of(PAGE as u64));
    with_ram(|ram| match load(&image, &Parameters::default(), ram) {
        Ok(()) => {
            assert!(image.memory_needed() <= MEMORY);
            loaded(data, ram);
        }
        Err(e) => assert!(!e.to_string().is_empty()),
    });
}

fn memfd(data: &[u8]) -> File {
    let file = memfd_create(c"image", MFdFlags::MFD_CLOEXEC).expect("a file in memory");
    let mut file = File::from(file);
    file.write_all(data).and_then(|()| file.rewind()).expect("memory takes what is written");
    file
}

/// Compares memory with the program headers, read independently of the loader.
fn loaded(data: &[u8], ram: Writable<'_>) {
    let header = FileHeader64::<LittleEndian>::parse(data).expect("it was verified");
    let segments = header.program_headers(LittleEndian, data).expect("they were verified");
    let mut expected = vec![0; MEMORY as usize];
    for segment in segments.iter().filter(|s| s.p_type(LittleEndian) == PT_LOAD) {
        let at = segment.p_paddr(LittleEndian) as usize;
        let content = segment.data(LittleEndian, data).expect("it lies inside the file");
        expected[at..at + content.len()].copy_from_slice(content);
    }
    let mut memory = vec![0; MEMORY as usize];
    ram.read(0, &mut memory).expect("all of it");
    // Below the image the VMM leaves data for the guest.
    for told in [START_INFO..START_INFO + PAGE_SIZE, CMDLINE..CMDLINE + CMDLINE_MAX] {
        memory[told.start as usize..told.end as usize].fill(0);
    }
    let differs = memory.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!(differs, None, "memory is not what the file says");
}
