//! A guest that prints a line and then waits, whatever its input.

use crate::{control, guest};
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::CONSOLE_OUT,
};

guest!(
    greeter,
    "mov dword ptr [{ring}], 0x0a216968", // "hi!\n"
    "mov dword ptr [{head}], 4",
    "mov edx, {port}",
    "2: mov eax, {bits}",
    "out dx, eax",
    "jmp 2b",
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    port = const PORT as u32,
    bits = const Doorbell::CONSOLE.0 | Doorbell::WAIT.0,
);

/// Its code. It prints `hi!`.
pub fn greets() -> &'static [u8] {
    greeter()
}
