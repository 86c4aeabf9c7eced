//! A routine that the VMM runs before the guest does at a new host; see
//! [`ControlPage::touch_pages`](vmm_lite_interface::control::ControlPage::touch_pages).

use core::arch::global_asm;

global_asm!(
    ".pushsection .text.touch_pages, \"ax\", @progbits",
    "touch_pages:",
    "2: test rsi, rsi",
    "jz 3f",
    "mov bl, [rdi]",
    "add rdi, 4096",
    "dec rsi",
    "jmp 2b",
    "3: test r9, r9",
    "jz 4f",
    "mov bl, [r8]",
    "add r8, 4096",
    "dec r9",
    "jmp 3b",
    "4: test r11, r11",
    "jz 5f",
    "mov bl, [r10]",
    "add r10, 4096",
    "dec r11",
    "jmp 4b",
    "5: test r13, r13",
    "jz 6f",
    "mov bl, [r12]",
    "add r12, 4096",
    "dec r13",
    "jmp 5b",
    "6: test r15, r15",
    "jz 7f",
    "mov bl, [r14]",
    "add r14, 4096",
    "dec r15",
    "jmp 6b",
    "7: out dx, eax",
    "ud2",
    ".popsection",
);

unsafe extern "C" {
    fn touch_pages();
}

/// Where it is.
pub fn address() -> u64 {
    (touch_pages as *const ()).addr() as u64
}
