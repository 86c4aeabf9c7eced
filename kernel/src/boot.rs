//! From the monitor's `iretq` to the program's `main`.

use vmm_lite_interface::layout::CONTROL_MODULE;

use crate::{
    arch::{
        self,
        paging::{Builder, LARGE, PAGE, Rights, Tables},
    },
    image, mm, params,
    platform::{self, pvh::StartInfo},
    sched, time,
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
        // SAFETY: only the address is taken.
        (unsafe { &raw const $symbol }) as usize
    };
}

/// Where the monitor goes when it has made CPL 3 possible: on the boot stack, the first GiB mapped as it is.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start_info: usize) -> ! {
    // SAFETY: what the loader passed in EBX.
    let info = unsafe { StartInfo::at(start_info) }.expect("booted by PVH");
    let (start, end) = memory(info);
    let pool_end = build_tables(start, end);
    // SAFETY: all of it is RAM behind the image and the table pool, mapped writable.
    unsafe { mm::init(pool_end, end) };
    if let Some(control) = info.module(CONTROL_MODULE) {
        platform::set_control(control);
    } else {
        calibrate();
    }
    params::init(info.command_line());
    platform::init();
    sched::spawn(main_thread, 0, MAIN_STACK).expect("memory for the main thread");
    sched::start()
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

// SAFETY: pages come one after the other from RAM that nothing else uses and that loaders hand over zeroed.
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
        b.identity(PAGE, 0xa0000, Rights::Write)?;
        // Firmware hands over its words in ROM.
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
        b.window()
    })();
    let window = map.expect("room for tables");
    let root = b.root();
    let pool = b.into_tables();
    // SAFETY: the monitor's data can be written until the tables are loaded, and nothing reads it before.
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

/// Gates for the faults, all to CPL 0, none open to CPL 3.
///
/// # Safety
/// Before the tables are loaded.
unsafe fn fill_idt() {
    macro_rules! gates {
        ($($vector:literal: $stub:ident),* $(,)?) => {{
            unsafe extern "C" { $(fn $stub();)* }
            $(
                let at = $stub as *const () as u64;
                // SAFETY: as the caller promises.
                unsafe {
                    monitor_idt[$vector] =
                        [at & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (at >> 16 & 0xffff) << 48, at >> 32];
                }
            )*
        }};
    }
    gates!(
        0: monitor_fault_0, 1: monitor_fault_1, 4: monitor_fault_4, 5: monitor_fault_5, 6: monitor_fault_6,
        7: monitor_fault_7, 8: monitor_fault_8, 10: monitor_fault_10, 11: monitor_fault_11, 12: monitor_fault_12,
        13: monitor_fault_13, 14: monitor_fault_14, 16: monitor_fault_16, 17: monitor_fault_17, 19: monitor_fault_19,
        21: monitor_fault_21,
    );
}

/// The TSC's pace, from CPUID where it is told.
fn calibrate() {
    let hz = core::arch::x86_64::__cpuid(0x15);
    let hz = if hz.eax != 0 && hz.ebx != 0 && hz.ecx != 0 {
        u64::from(hz.ecx) * u64::from(hz.ebx) / u64::from(hz.eax)
    } else {
        1_000_000_000
    };
    time::set_tsc(arch::cpu::tsc(), hz);
}

extern "C" fn main_thread(_: usize) {
    let (argc, argv, env) = params::for_std();
    // SAFETY: std's entry for this target, called once, with arrays that stay.
    unsafe { runtime_entry(argc, argv, env) }
}
