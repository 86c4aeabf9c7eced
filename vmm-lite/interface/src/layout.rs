//! Guest-physical addresses under vmm-lite. Under QEMU only [`IMAGE_BASE`] holds.
//!
//! RAM is one range from 0. Only the VMM's own structures are below [`IMAGE_BASE`], from before
//! boot.

/// Size of a page, in bytes.
pub const PAGE_SIZE: u64 = 4096;

/// `hvm_start_info` of the PVH boot protocol, followed by its module list and memory map. One page.
pub const START_INFO: u64 = 0x1000;

/// The command line (boot parameters), NUL-terminated, up to [`CMDLINE_MAX`] bytes with the NUL.
pub const CMDLINE: u64 = 0x1_0000;
/// Room for the command line, in bytes.
pub const CMDLINE_MAX: u64 = 0x1_0000;

/// The [`ControlPage`](crate::control::ControlPage); one page. The guest learns the address as the
/// PVH module whose command line is [`CONTROL_MODULE`].
pub const CONTROL_PAGE: u64 = 0x4000;
/// Command line of the PVH module that is the control page. An image that finds no such module does
/// not run under vmm-lite.
pub const CONTROL_MODULE: &str = "vmm-lite-control";

/// Ring of bytes from the guest to the console. See [`crate::control::ByteRing`].
pub const CONSOLE_OUT: u64 = 0x6000;
/// Size of the data of the console output ring, in bytes; a power of two.
pub const CONSOLE_OUT_SIZE: u32 = 8192;
/// Ring of bytes from the console to the guest.
pub const CONSOLE_IN: u64 = 0x8000;
/// Size of the data of the console input ring, in bytes; a power of two.
pub const CONSOLE_IN_SIZE: u32 = 4096;

/// The [`SampleRing`](crate::samples::SampleRing): one page, followed by its slots. Not part of the
/// guest's state: the VMM that runs a guest sets it up.
pub const SAMPLES: u64 = 0x2_0000;
/// How many samples the ring holds.
pub const SAMPLE_SLOTS: u64 = 8192;
/// Address of the slots: a `u64` each.
pub const SAMPLE_SLOTS_AT: u64 = SAMPLES + PAGE_SIZE;
/// The end of the slots.
pub const SAMPLES_END: u64 = SAMPLE_SLOTS_AT + SAMPLE_SLOTS * 8;

/// Where images are linked (`-Ttext-segment`): the first byte of the first segment.
pub const IMAGE_BASE: u64 = 0x10_0000;

/// Register window of the virtio-mmio network device (512 bytes), well above any RAM.
/// [`ControlPage::net_mmio`](crate::control::ControlPage::net_mmio) is 0 when there is none.
pub const NET_MMIO: u64 = 1 << 38;

/// Largest memory of a guest, in bytes: RAM ends below [`NET_MMIO`].
pub const MEMORY_MAX: u64 = 64 << 30;
