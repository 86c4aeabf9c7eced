//! Memory. An invalid layout gives null, and so does an exhausted heap: the program decides what to
//! do then.

use core::{alloc::Layout, ptr};

use crate::mm;

#[unsafe(no_mangle)]
extern "C" fn sys_malloc(size: usize, align: usize) -> *mut u8 {
    Layout::from_size_align(size, align).map_or(ptr::null_mut(), mm::allocate)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_free(block: *mut u8, size: usize, align: usize) {
    if let Ok(layout) = Layout::from_size_align(size, align) {
        // SAFETY: the caller frees what it was given with these numbers.
        unsafe { mm::free(block, layout) };
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_realloc(
    block: *mut u8,
    size: usize,
    align: usize,
    new_size: usize,
) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size, align) else { return ptr::null_mut() };
    // SAFETY: the caller gives what it was given with these numbers.
    unsafe { mm::reallocate(block, layout, new_size) }
}

#[unsafe(no_mangle)]
extern "C" fn sys_alloc(size: usize, align: usize) -> *mut u8 {
    sys_malloc(size, align)
}

#[unsafe(no_mangle)]
extern "C" fn sys_alloc_zeroed(size: usize, align: usize) -> *mut u8 {
    let block = sys_malloc(size, align);
    if !block.is_null() {
        // SAFETY: just allocated, of that size.
        unsafe { block.write_bytes(0, size) };
    }
    block
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sys_dealloc(block: *mut u8, size: usize, align: usize) {
    // SAFETY: the caller frees what it was given with these numbers.
    unsafe { sys_free(block, size, align) };
}

#[unsafe(no_mangle)]
extern "C" fn sys_getpagesize() -> i32 {
    4096
}
