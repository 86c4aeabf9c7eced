//! The structures in memory that the PVH boot protocol requires.

use crate::memory::Writable;
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::{ByteValued, Bytes, GuestAddress};
use vmm_lite_interface::layout::{
    CMDLINE, CONTROL_MODULE, CONTROL_PAGE, IMAGE_BASE, PAGE_SIZE, START_INFO,
};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const TYPE_RAM: u32 = 1;
const TYPE_RESERVED: u32 = 2;

// Behind the start info, on the same page.
const MODULES: u64 = START_INFO + 0x100;
const MEMORY_MAP: u64 = START_INFO + 0x200;
const MODULE_NAME: u64 = START_INFO + 0x300;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct StartInfo(hvm_start_info);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Module(hvm_modlist_entry);
#[derive(Clone, Copy)]
#[repr(transparent)]
struct MapEntry(hvm_memmap_table_entry);

// SAFETY: only integers, laid out without padding.
unsafe impl ByteValued for StartInfo {}
// SAFETY: only integers, laid out without padding.
unsafe impl ByteValued for Module {}
// SAFETY: only integers, laid out without padding.
unsafe impl ByteValued for MapEntry {}

/// Writes start info, module list, memory map and command line.
pub(super) fn write(cmdline: &str, ram: Writable<'_>) {
    let entry =
        |addr, size, type_| MapEntry(hvm_memmap_table_entry { addr, size, type_, reserved: 0 });
    let map =
        [entry(0, IMAGE_BASE, TYPE_RESERVED), entry(IMAGE_BASE, ram.size() - IMAGE_BASE, TYPE_RAM)];
    let module = Module(hvm_modlist_entry {
        paddr: CONTROL_PAGE,
        size: PAGE_SIZE,
        cmdline_paddr: MODULE_NAME,
        reserved: 0,
    });
    let info = StartInfo(hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        flags: 0,
        nr_modules: 1,
        modlist_paddr: MODULES,
        cmdline_paddr: CMDLINE,
        rsdp_paddr: 0,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        reserved: 0,
    });
    let inside = "below the image, in every guest";
    let mmap = ram.mmap();
    mmap.write_obj(info, GuestAddress(START_INFO)).expect(inside);
    mmap.write_obj(module, GuestAddress(MODULES)).expect(inside);
    for (i, entry) in map.into_iter().enumerate() {
        let at = MEMORY_MAP + (i * size_of::<MapEntry>()) as u64;
        mmap.write_obj(entry, GuestAddress(at)).expect(inside);
    }
    // Memory is zero, so that both end with a NUL.
    ram.write(MODULE_NAME, CONTROL_MODULE.as_bytes()).expect(inside);
    ram.write(CMDLINE, cmdline.as_bytes()).expect(inside);
}
