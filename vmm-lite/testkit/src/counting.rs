//! A guest whose memory and registers belong together, so that it notices when they do not.

use crate::{control, guest, guest::Elf};
use std::time::Instant;
use vmm::{
    boot::{Image, Parameters},
    devices::console::Console,
    vm::{Config, ResumeReason, Vm},
};
use vmm_lite_interface::doorbell::{Doorbell, PORT};

const COUNTER: u64 = 0x18_0000;
const OTHER: u64 = 0x19_0000;
pub use vmm_lite_lab::vmm::TIMEOUT;

guest!(
    counts_together,
    // A register, and two pages one after the other, count the same. A guest in which they differ
    // was not copied at one instant; it exits with 66, and one that was restored, or put back, and
    // finds all right with 5.
    "xor ebx, ebx",
    "mov edx, {port}",
    "2: inc ebx",
    "inc dword ptr [{counter}]",
    "cmp ebx, [{counter}]",
    "jne 9f",
    "inc dword ptr [{other}]",
    "cmp ebx, [{other}]",
    "jne 9f",
    "mov eax, [{request}]",
    "cmp eax, [{answer}]",
    "je 2b",
    "mov [{answer}], eax",
    "mov eax, {quiesced}",
    "out dx, eax",
    "cmp dword ptr [{reason}], {restored}",
    "je 3f",
    "cmp dword ptr [{reason}], {reverted}",
    "jne 2b",
    "3:",
    "cmp ebx, [{counter}]",
    "jne 9f",
    "cmp ebx, [{other}]",
    "jne 9f",
    "mov dword ptr [{code}], 5",
    "8: mov eax, {exit}",
    "out dx, eax",
    "9: mov dword ptr [{code}], 66",
    "jmp 8b",
    counter = const COUNTER as u32,
    other = const OTHER as u32,
    request = const control!(quiesce_request),
    answer = const control!(quiesce_answer),
    reason = const control!(resume_reason),
    restored = const ResumeReason::Restored as u32,
    reverted = const ResumeReason::Reverted as u32,
    code = const control!(exit_code),
    port = const PORT as u32,
    quiesced = const Doorbell::QUIESCED.0,
    exit = const Doorbell::EXIT.0,
);

/// A VM that runs the guest.
pub fn vm(memory: u64) -> Vm {
    let file = Elf::of(counts_together()).file();
    let image = Image::open(file.path()).unwrap();
    let parameters = Parameters { name: "counts".into(), ..Default::default() };
    let config = Config { memory, nets: vec![], parameters };
    let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
    guest::start(&vm);
    vm
}

/// Waits until the guest has counted further.
pub fn counts_on(vm: &Vm) {
    let (from, deadline) = (counted(vm), Instant::now() + TIMEOUT);
    while counted(vm) < from + 5 {
        assert!(Instant::now() < deadline, "the guest does not run");
        std::thread::yield_now();
    }
}

/// How far it has counted.
pub fn counted(vm: &Vm) -> u32 {
    let mut bytes = [0; 4];
    vm.ram().read(COUNTER, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}
