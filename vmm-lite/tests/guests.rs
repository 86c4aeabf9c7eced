//! Hand-written guests, correct and hostile: each ends as it should, and the VMM is unaffected.

use std::time::{Duration, Instant};
use testkit::{
    control, guest,
    guest::{kvm, printed, run, start, vm},
};
use vmm::{
    devices::Violation,
    vm::{End, RunState},
};
use vmm_lite_interface::{
    control::FaultKind,
    doorbell::{Doorbell, PORT},
    layout::{CONSOLE_OUT, CONSOLE_OUT_SIZE},
};

const CONSOLE_EXIT: u32 = Doorbell::CONSOLE.0 | Doorbell::EXIT.0;

guest!(
    hello,
    "mov dword ptr [{ring}], 0x6c6c6568", // "hell"
    "mov word ptr [{ring} + 4], 0x0a6f",  // "o\n"
    "mov dword ptr [{head}], 6",
    "mov dword ptr [{code}], 7",
    "mov edx, {port}",
    "mov eax, {bits}",
    "out dx, eax",
    "hlt",
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    code = const control!(exit_code),
    port = const PORT as u32,
    bits = const CONSOLE_EXIT,
);

#[test]
fn a_guest_prints_and_exits() {
    if !kvm() {
        return;
    }
    let vm = vm(hello());
    start(&vm);
    let end = vm.wait_end();
    assert!(matches!(*end, End::Exited(7)), "{end}");
    assert_eq!(printed(&vm), "hello\n");
    let stats = vm.stats();
    assert_eq!((stats.exits.doorbell, stats.exits.console, stats.state), (1, 1, RunState::Ended));
}

guest!(meaningless_bits, "mov edx, {port}", "mov eax, 0x108", "out dx, eax", "hlt",
    port = const PORT as u32);
guest!(one_byte, "mov edx, {port}", "mov al, 1", "out dx, al", "hlt", port = const PORT as u32);
guest!(other_port, "mov dx, 0x3f8", "mov al, 65", "out dx, al", "hlt");
guest!(reads_a_port, "mov dx, 0x60", "in al, dx", "hlt");
guest!(halts, "cli", "hlt");
guest!(beyond_memory, "mov eax, [0x30000000]", "hlt");
guest!(network_that_is_not_there, "mov dword ptr [0xf0000000], 1", "hlt");
// No IDT: the first exception is fatal.
guest!(triple_faults, "lidt [{zero}]", "ud2", zero = const 0x9000);
guest!(
    claims_too_much_output,
    "mov dword ptr [{head}], {too_much}",
    "mov edx, {port}",
    "mov eax, 1",
    "out dx, eax",
    "hlt",
    head = const control!(console_out.head),
    too_much = const CONSOLE_OUT_SIZE + 1,
    port = const PORT as u32,
);

#[test]
fn a_guest_that_breaks_a_rule_is_ended() {
    if !kvm() {
        return;
    }
    let broke = |code: &[u8]| match &*run(code) {
        End::Broke(violation) => violation.clone(),
        other => panic!("{other}"),
    };
    assert_eq!(broke(meaningless_bits()), Violation::Doorbell(0x108));
    assert_eq!(broke(one_byte()), Violation::DoorbellSize(1));
    assert_eq!(broke(other_port()), Violation::Port(0x3f8));
    assert_eq!(broke(reads_a_port()), Violation::Port(0x60));
    assert_eq!(broke(halts()), Violation::Halted);
    assert_eq!(broke(beyond_memory()), Violation::Address(0x3000_0000));
    assert_eq!(broke(network_that_is_not_there()), Violation::Address(0xf000_0000));
    assert_eq!(broke(triple_faults()), Violation::TripleFault);
    let lie = Violation::ConsoleRing { ring: "output", bytes: CONSOLE_OUT_SIZE + 1 };
    assert_eq!(broke(claims_too_much_output()), lie);
}

guest!(
    fails,
    "mov dword ptr [{kind}], 2",
    "mov dword ptr [{address}], 0x1234",
    "mov dword ptr [{len}], 0xffffffff",
    "mov edx, {port}",
    "mov eax, {bits}",
    "out dx, eax",
    "hlt",
    kind = const control!(fault.kind),
    address = const control!(fault.address),
    len = const control!(fault.backtrace_len),
    port = const PORT as u32,
    bits = const Doorbell::FAULT.0,
);

#[test]
fn a_failure_report_with_false_lengths_is_truncated() {
    if !kvm() {
        return;
    }
    let end = run(fails());
    let End::Failed(fault) = &*end else { panic!("{end}") };
    assert_eq!(fault.kind, Some(FaultKind::StackOverflow));
    assert_eq!(fault.backtrace.len(), 32, "never more than there is room for");
    assert!(fault.what().contains("stack overflow at address 0x1234"), "{}", fault.what());
    assert_eq!(fault.exit_code(), 139);
}

guest!(
    waits_then_exits,
    // Wakes 4.3 seconds after the VM was made: longer than starting it may take.
    "mov dword ptr [{deadline}], 0",
    "mov dword ptr [{deadline} + 4], 1",
    "mov edx, {port}",
    "mov eax, {wait}",
    "out dx, eax",
    "mov eax, {exit}",
    "out dx, eax",
    "hlt",
    deadline = const control!(wake_deadline_ns),
    port = const PORT as u32,
    wait = const Doorbell::WAIT.0,
    exit = const Doorbell::EXIT.0,
);

#[test]
fn a_wait_ends_at_its_deadline() {
    if !kvm() {
        return;
    }
    // The guest's clock starts when the VM is made.
    let started = Instant::now();
    let vm = vm(waits_then_exits());
    start(&vm);
    let end = vm.wait_end();
    let took = started.elapsed();
    assert!(matches!(*end, End::Exited(0)), "{end}");
    assert!(took >= Duration::from_secs_f64(4.2), "{took:?}");
    assert!(vm.stats().exits.slept >= 1, "the vCPU thread slept");
}
