//! Guests that print a line and then wait.

use crate::{control, guest};
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::{CONSOLE_IN, CONSOLE_OUT},
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

/// The code of one that prints `hi!`, and waits whatever its input.
pub fn greets() -> &'static [u8] {
    greeter()
}

guest!(
    obedient,
    "mov dword ptr [{ring}], 0x0a216968", // "hi!\n"
    "mov dword ptr [{head}], 4",
    "mov edx, {port}",
    "2: mov eax, {bits}",
    "out dx, eax",
    // Quiesce on request.
    "mov eax, [{request}]",
    "cmp eax, [{answer}]",
    "je 3f",
    "mov [{answer}], eax",
    "mov eax, {quiesced}",
    "out dx, eax",
    // Exit with the first byte typed as the code.
    "3: cmp dword ptr [{in_head}], 0",
    "je 2b",
    "movzx eax, byte ptr [{in_ring}]",
    "mov [{code}], eax",
    "mov eax, {exit}",
    "out dx, eax",
    "hlt",
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    in_ring = const CONSOLE_IN as u32,
    in_head = const control!(console_in.head),
    request = const control!(quiesce_request),
    answer = const control!(quiesce_answer),
    code = const control!(exit_code),
    port = const PORT as u32,
    bits = const Doorbell::CONSOLE.0 | Doorbell::WAIT.0,
    quiesced = const Doorbell::QUIESCED.0,
    exit = const Doorbell::EXIT.0,
);

/// The code of one that prints `hi!` too, quiesces on request, and exits with the first byte typed.
pub fn greets_and_obeys() -> &'static [u8] {
    obedient()
}
