//! The loader's boot information: `hvm_start_info` of the PVH boot protocol (Xen's public headers,
//! `arch-x86/hvm/start_info.h`).

use core::ffi::CStr;

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;

/// The structure at the address that the loader passes.
#[repr(C)]
#[derive(Debug)]
pub struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    command_line: u64,
    rsdp: u64,
    memory_map: u64,
    memory_map_entries: u32,
    reserved: u32,
}

#[repr(C)]
struct Module {
    address: u64,
    size: u64,
    command_line: u64,
    reserved: u64,
}

#[repr(C)]
struct MemoryMapEntry {
    address: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

impl StartInfo {
    /// The structure at `address`, if there is one.
    ///
    /// # Safety
    /// `address` must be what the loader passed, with low memory mapped where it is.
    pub unsafe fn at(address: usize) -> Option<&'static Self> {
        // SAFETY: as the caller promises.
        let info = unsafe { &*(address as *const Self) };
        (info.magic == MAGIC).then_some(info)
    }

    /// The command line, empty if there is none.
    pub fn command_line(&self) -> &'static str {
        if self.command_line == 0 {
            return "";
        }
        // SAFETY: the protocol promises a NUL-terminated string there, and nothing overwrites it.
        unsafe { CStr::from_ptr(self.command_line as *const _) }.to_str().unwrap_or("")
    }

    /// Address of the module with this command line.
    pub fn module(&self, name: &str) -> Option<usize> {
        (0..self.modules as usize).find_map(|n| {
            // SAFETY: the protocol promises `modules` of them.
            let module = unsafe { &*(self.module_list as *const Module).add(n) };
            if module.command_line == 0 {
                return None;
            }
            // SAFETY: likewise a NUL-terminated string.
            let text = unsafe { CStr::from_ptr(module.command_line as *const _) };
            (text.to_bytes() == name.as_bytes()).then_some(module.address as usize)
        })
    }

    /// End of the RAM that holds `address`.
    pub fn ram_end(&self, address: u64) -> Option<usize> {
        (0..self.memory_map_entries as usize).find_map(|n| {
            // SAFETY: the protocol promises that many entries.
            let entry = unsafe { &*(self.memory_map as *const MemoryMapEntry).add(n) };
            let end = entry.address + entry.size;
            (entry.kind == RAM && (entry.address..end).contains(&address)).then_some(end as usize)
        })
    }
}
