//! The unikernel that `vmm-lite build` links under a std program.
//!
//! Built as an archive for the stock hermit target, prelinked into one object that exports `sys_*` and `_start` only:
//!
//! ```text
//! cargo rustc -p vmm-lite-kernel --crate-type staticlib --release --target x86_64-unknown-hermit -Zbuild-std=core,alloc
//! ld -r --whole-archive libkernel.a -o kernel.o
//! objcopy --wildcard --keep-global-symbol='sys_*' --keep-global-symbol=_start kernel.o
//! ```
//! On the host it is an ordinary library, of which only the parts that need no guest are there.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod arch;
pub mod cell;
pub mod net;

/// Memory that the kernel needs beyond the image to start, in KiB: tables, first heap, main stack.
pub const MIN_FREE_KIB: u32 = 512;

#[cfg(target_os = "hermit")]
mod abi;
#[cfg(target_os = "hermit")]
mod boot;
#[cfg(target_os = "hermit")]
pub mod entropy;
#[cfg(target_os = "hermit")]
pub mod fault;
#[cfg(target_os = "hermit")]
pub mod image;
#[cfg(target_os = "hermit")]
pub mod mm;
#[cfg(target_os = "hermit")]
pub mod params;
#[cfg(target_os = "hermit")]
pub mod platform;
#[cfg(target_os = "hermit")]
pub mod quiesce;
#[cfg(target_os = "hermit")]
pub mod sched;
#[cfg(target_os = "hermit")]
pub mod time;
#[cfg(target_os = "hermit")]
mod tls;

/// Prints to the console.
#[cfg(target_os = "hermit")]
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        let _ = write!($crate::Console, $($arg)*);
    }};
}

/// The console, for `write!`.
#[cfg(target_os = "hermit")]
#[derive(Debug)]
pub struct Console;

#[cfg(target_os = "hermit")]
impl core::fmt::Write for Console {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        platform::console_write(s.as_bytes());
        Ok(())
    }
}

#[cfg(target_os = "hermit")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    print!("kernel: {info}\n");
    platform::fail(|report| {
        report.kind.store(
            vmm_lite_interface::control::FaultKind::Kernel as u32,
            core::sync::atomic::Ordering::Relaxed,
        );
    })
}

#[cfg(target_os = "hermit")]
mod global {
    use core::alloc::{GlobalAlloc, Layout};
    struct KernelHeap;
    // SAFETY: `mm` hands out memory as `GlobalAlloc` asks.
    unsafe impl GlobalAlloc for KernelHeap {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            crate::mm::allocate(layout)
        }
        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            // SAFETY: as the trait's contract says.
            unsafe { crate::mm::free(block, layout) }
        }
        unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            // SAFETY: as the trait's contract says.
            unsafe { crate::mm::reallocate(block, layout, new_size) }
        }
    }
    #[global_allocator]
    static HEAP: KernelHeap = KernelHeap;
}
