//! From the monitor's `iretq` to the program's `main`.

use alloc::vec::Vec;
use core::{ptr, slice};

use vmm_lite_interface::layout::CONTROL_MODULE;

use crate::{
    arch::{
        self,
        paging::{Builder, LARGE, PAGE, Rights, Tables},
    },
    events, image, mm, net, params,
    platform::{self, pvh::StartInfo},
    quiesce, sched,
};

unsafe extern "C" {
    static monitor_text_start: u8;
    static monitor_text_end: u8;
    static monitor_data_start: u8;
    static monitor_data_end: u8;
    static mut monitor_frames_low: u64;
    static mut monitor_frames_high: u64;
    static mut monitor_window_pdpt: u64;
    static mut monitor_pool_next: u64;
    static mut monitor_pool_end: u64;
    static mut monitor_idt: [[u64; 2]; 256];
    fn runtime_entry(argc: i32, argv: *const *const u8, env: *const *const u8) -> !;
}

/// Stack of the main thread.
const MAIN_STACK: usize = 8 << 20;

macro_rules! address {
    ($symbol:ident) => {
        (&raw const $symbol).expose_provenance()
    };
}

/// The kernel's entry from the monitor, at CPL 3, on the boot stack, with the first GiB mapped
/// where it is.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: usize) -> ! {
    // SAFETY: what the loader passed in EBX.
    let info = unsafe { StartInfo::at(start_info) }.expect("booted by PVH");
    if let Some(control) = info.module(CONTROL_MODULE) {
        // SAFETY: vmm-lite put it there for good.
        unsafe { platform::set_control(control) };
    }
    let (start, end) = memory(info);
    let heap = build_tables(start, end);
    // SAFETY: all of it is RAM behind the image and the tables, mapped writable.
    unsafe { mm::init(heap, end) };
    params::init(info.command_line());
    platform::init();
    quiesce::init();
    sched::spawn(main_thread, 0, MAIN_STACK).expect("memory for the main thread");
    sched::start(events::idle)
}

fn memory(info: &StartInfo) -> (usize, usize) {
    let start = image::end();
    let end = info
        .ram_end(image::segments().next().map_or(0, |s| s.address))
        .expect("RAM holds the image");
    (start, end & !(PAGE - 1))
}

struct Pool {
    next: usize,
    end: usize,
}

// SAFETY: pages come one after the other from RAM that nothing else uses and that loaders hand over
// zeroed.
unsafe impl Tables for Pool {
    fn page(&mut self) -> Option<u64> {
        let page = self.next;
        self.next += PAGE;
        (self.next <= self.end).then_some(page as u64)
    }
    fn at(&self, physical: u64) -> *mut [u64; 512] {
        physical as usize as *mut _
    }
}

/// Builds the final tables behind the image and has them loaded; returns where the pool ends.
fn build_tables(start: usize, end: usize) -> usize {
    let window_tables = (end / 32).max(64 << 10);
    let identity =
        (4 + end / (1 << 30) + start.div_ceil(LARGE) + (end / 32).div_ceil(LARGE) + 8) * PAGE;
    let pool_end = (start + identity + window_tables).next_multiple_of(PAGE);
    let mut b = Builder::new(Pool { next: start, end: pool_end }).expect("room for tables");
    let map = (|| {
        b.identity(PAGE, 0xa0000, Rights::Read)?;
        for (from, to) in platform::shared() {
            b.identity(from, to, Rights::Write)?;
        }
        // ROM: the loader's structures may lie there.
        b.identity(0xe0000, 0x100000, Rights::Read)?;
        for s in image::segments() {
            let rights = match s.flags & 3 {
                0 => Rights::Read,
                1 => Rights::Execute,
                _ => Rights::Write,
            };
            let from = s.address as usize & !(PAGE - 1);
            let to = (s.address + s.memory_size) as usize;
            b.identity(from, to.next_multiple_of(PAGE), rights)?;
        }
        b.identity(
            address!(monitor_text_start),
            address!(monitor_text_end),
            Rights::MonitorExecute,
        )?;
        b.identity(address!(monitor_data_start), address!(monitor_data_end), Rights::MonitorWrite)?;
        b.identity(start, pool_end, Rights::MonitorWrite)?;
        b.identity(pool_end, end, Rights::Write)?;
        for (from, size) in platform::devices() {
            b.identity(from, from + size, Rights::Device)?;
        }
        b.window()
    })();
    let window = map.expect("room for tables");
    let root = b.root();
    let pool = b.into_tables();
    // SAFETY: the monitor's data can be written until the tables are loaded, and nothing reads it
    // before.
    unsafe {
        monitor_frames_low = pool_end as u64;
        monitor_frames_high = end as u64;
        monitor_window_pdpt = window;
        monitor_pool_next = pool.next as u64;
        monitor_pool_end = pool.end as u64;
        fill_idt();
        arch::lock(root);
    }
    pool_end
}

/// A vector and what runs at CPL 0 when it comes. Layout shared with `monitor.s`.
#[repr(C)]
struct Gate {
    vector: u64,
    entry: u64,
}

/// Gates for faults and interrupts, none open to CPL 3. That for calls of the monitor is there
/// already.
///
/// # Safety
/// Before the tables are loaded.
unsafe fn fill_idt() {
    unsafe extern "C" {
        static monitor_gates: Gate;
        static monitor_gates_end: Gate;
    }
    let (from, to) = (&raw const monitor_gates, &raw const monitor_gates_end);
    // SAFETY: the monitor's constants, an array of gates between the two symbols.
    let gates = unsafe { slice::from_raw_parts(from, to.offset_from_unsigned(from)) };
    for &Gate { vector, entry } in gates {
        let low = entry & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (entry >> 16 & 0xffff) << 48;
        // SAFETY: as the caller promises.
        unsafe { monitor_idt[vector as usize] = [low, entry >> 32] };
    }
}

extern "C" fn main_thread(_: usize) {
    net::init();
    let (args, env) = params::for_program();
    let argc = args.len() as i32;
    // SAFETY: std's entry for this target, called once, with arrays that stay.
    unsafe { runtime_entry(argc, leak(args), leak(env)) }
}

/// An array of C strings, ended by null, that stays for good.
fn leak(strings: Vec<Vec<u8>>) -> *const *const u8 {
    let pointers = strings.into_iter().map(|s| s.leak().as_ptr()).chain([ptr::null()]);
    pointers.collect::<Vec<_>>().leak().as_ptr()
}
