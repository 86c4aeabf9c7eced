//! The parts of a VM as migration uses them: dirty pages, capture and apply, resume on either side,
//! the clock.

use std::{
    os::fd::AsRawFd,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use testkit::{control, guest, guest::*, meaning::meaning};
use vmm::{
    devices::console::Console,
    memory::{PAGE, PageSet},
    vm::{End, Error, Identity, Resume, ResumeReason, StopReason, Vm, VmPhase, VmState},
};
use vmm_lite_interface::doorbell::{Doorbell, PORT};
use vmm_lite_lab::vmm::TIMEOUT;

const COUNTER: u64 = 0x18_0000;
const OTHER: u64 = 0x19_0000;

guest!(
    counts,
    // ebx counts in a register what the page counts in memory; if they differ, the guest was not
    // moved correctly.
    "xor ebx, ebx",
    "mov edx, {port}",
    "2: inc ebx",
    "inc dword ptr [{counter}]",
    "cmp ebx, [{counter}]",
    "jne 9f",
    "mov [{other}], ebx",
    "mov eax, [{request}]",
    "cmp eax, [{answer}]",
    "je 2b",
    "mov [{answer}], eax",
    "mov eax, {quiesced}",
    "out dx, eax",
    "cmp dword ptr [{reason}], {taken_over}",
    "jne 2b",
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
    taken_over = const ResumeReason::TakenOver as u32,
    code = const control!(exit_code),
    port = const PORT as u32,
    quiesced = const Doorbell::QUIESCED.0,
    exit = const Doorbell::EXIT.0,
);

fn word(vm: &Vm, address: u64) -> u32 {
    let mut bytes = [0; 4];
    vm.ram().read(address, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

/// Waits until the guest has counted further than `from`.
fn counted_past(vm: &Vm, from: u32) -> u32 {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let now = word(vm, COUNTER);
        if now > from {
            return now;
        }
        assert!(Instant::now() < deadline, "the guest does not run");
        std::thread::yield_now();
    }
}

fn copy(pages: &PageSet, from: &Vm, to: &Vm) {
    let memory = to.unstarted_memory().unwrap();
    let mut content = [0; PAGE];
    for page in pages.iter() {
        from.ram().read_page(page, &mut content).unwrap();
        memory.write_page(page, &content).unwrap();
    }
}

/// Moves a VM, as a migration without a network would; the returned VM runs.
fn moved(source: &Vm, quiesce: Option<Duration>, reason: ResumeReason) -> Vm {
    let identity: Identity = source.identity().clone();
    let destination = Vm::prepare(identity, None, Console::new(None)).unwrap();
    let mut prepared = destination.hold().unwrap();
    prepared.warm_up().unwrap();
    let log = source.dirty_log().start_full().unwrap();
    log.leave_out(0..source.ram().pages()).unwrap();
    copy(&source.ram().complete().unwrap().touched().unwrap(), source, &destination);
    copy(&log.take().unwrap(), source, &destination);
    let mut paused = match quiesce {
        Some(timeout) => source.quiesce(timeout).unwrap(),
        None => source.pause().unwrap(),
    };
    assert_eq!(paused.quiescent(), quiesce.is_some());
    let state = paused.capture().unwrap();
    copy(&log.peek().unwrap(), source, &destination);
    let state = VmState::decode(&state.encode()).unwrap();
    prepared.apply(&state, Duration::from_millis(1)).unwrap();
    let there = prepared.capture().unwrap().vcpus.remove(0);
    assert_eq!(meaning(&there), meaning(&state.vcpus[0]), "the applied state is the VM's state");
    let late = paused.packets_in_transit().unwrap().read().unwrap().is_none();
    paused.moved().unwrap();
    assert!(late, "no network, no in-transit packets");
    prepared.resume(Resume { reason, away: Duration::from_millis(1) }).unwrap();
    assert!(destination.entered(TIMEOUT).is_some());
    assert!(matches!(*source.wait_end(), End::Moved));
    destination
}

#[test]
fn a_guest_continues_where_it_was() {
    if !kvm() {
        return;
    }
    let mut here = vm(counts());
    start(&here);
    let mut count = counted_past(&here, 10);
    for step in 0..20 {
        // Every other time the guest is not asked to quiesce.
        let quiesce = (step % 2 == 0).then_some(TIMEOUT);
        let there = moved(&here, quiesce, ResumeReason::Migrated);
        let now = word(&there, COUNTER);
        assert!(now >= count, "{now} after {count}");
        count = counted_past(&there, now);
        let resumes = there.ram().control_page().resume_count.load(SeqCst);
        assert_eq!(resumes, step + 1);
        here = there;
    }
    let there = moved(&here, Some(TIMEOUT), ResumeReason::TakenOver);
    let end = there.wait_end();
    assert!(matches!(*end, End::Exited(5)), "registers and memory agree: {end}");
}

#[test]
fn a_state_captured_early_is_the_final_one() {
    if !kvm() {
        return;
    }
    let here = vm(counts());
    start(&here);
    here.stop_is_near(true);
    // The first time KVM completes the instruction with which the guest answers; later its result
    // is known.
    let stood = |_| {
        let mut paused = here.quiesce(TIMEOUT).unwrap();
        assert!(paused.quiescent());
        let state = paused.capture().unwrap();
        paused.resume_here().unwrap();
        state.vcpus.into_iter().next().unwrap()
    };
    let states: Vec<_> = (0..5).map(stood).collect();
    assert!(states.windows(2).all(|s| s[0].regs.rbx < s[1].regs.rbx), "the guest ran on");
    assert!(states.iter().all(|s| s.regs.rip == states[0].regs.rip), "from the same place");
    here.pause().unwrap().resume_here().unwrap();
    // A guest that continued from the wrong place, or with other registers, would notice.
    let there = moved(&here, Some(TIMEOUT), ResumeReason::TakenOver);
    let end = there.wait_end();
    assert!(matches!(*end, End::Exited(5)), "registers and memory agree: {end}");
}

guest!(
    waits,
    "mov edx, {port}",
    "mov eax, {wait}",
    "2: inc dword ptr [{counter}]",
    "out dx, eax",
    "jmp 2b",
    counter = const COUNTER as u32,
    port = const PORT as u32,
    wait = const Doorbell::WAIT.0,
);

#[test]
fn a_waiting_guest_is_stopped_where_it_is_and_checks_for_events_afterwards() {
    if !kvm() {
        return;
    }
    let vm = vm(waits());
    start(&vm);
    vm.stop_is_near(true);
    for round in 1..=20 {
        assert_eq!(counted_past(&vm, round - 1), round);
        let deadline = Instant::now() + TIMEOUT;
        while !vm.effort().is_some_and(|effort| effort.idle) {
            assert!(Instant::now() < deadline, "it does not wait");
            std::thread::yield_now();
        }
        let mut paused = vm.pause().unwrap();
        let state = paused.capture().unwrap();
        assert_eq!(state.unserved, 0, "the wait is over");
        assert_eq!(word(&vm, COUNTER), round, "it did not run for that");
        paused.resume_here().unwrap();
    }
    vm.stop(StopReason::Stop);
    assert!(matches!(*vm.wait_end(), End::Stopped(StopReason::Stop)));
}

#[test]
fn a_failed_move_changes_nothing() {
    if !kvm() {
        return;
    }
    let vm = vm(counts());
    start(&vm);
    counted_past(&vm, 10);
    let log = vm.dirty_log().start_full().unwrap();
    log.take().unwrap();
    for quiesce in [true, false, true] {
        counted_past(&vm, word(&vm, COUNTER) + 2);
        let mut paused = if quiesce { vm.quiesce(TIMEOUT) } else { vm.pause() }.unwrap();
        let first = paused.capture().unwrap();
        let again = paused.capture().unwrap();
        assert_eq!(meaning(&again.vcpus[0]), meaning(&first.vcpus[0]), "capturing changes nothing");
        let last = log.peek().unwrap();
        assert_eq!(last, log.peek().unwrap(), "nor does peeking at the dirty log");
        assert!(last.contains(COUNTER as usize / PAGE) && last.contains(OTHER as usize / PAGE));
        let count = word(&vm, COUNTER);
        paused.resume_here().unwrap();
        counted_past(&vm, count);
        // The next try finds every page that the failed one did not transfer.
        let next = log.take().unwrap();
        assert!(last.iter().all(|page| next.contains(page)));
    }
    vm.stop(StopReason::Stop);
}

#[test]
fn dirty_pages_are_those_written() {
    if !kvm() {
        return;
    }
    let vm = vm(counts());
    start(&vm);
    counted_past(&vm, 10);
    let log = vm.dirty_log().start_full().unwrap();
    log.take().unwrap();
    counted_past(&vm, word(&vm, COUNTER) + 10);
    let paused = vm.pause().unwrap();
    let dirty = log.take().unwrap();
    assert_eq!(
        dirty.iter().collect::<Vec<_>>(),
        [COUNTER as usize / PAGE, OTHER as usize / PAGE],
        "the two pages that the guest writes, and none of the VMM's"
    );
    assert!(log.take().unwrap().is_empty());
    // The VMM's writes are in it too: the control page with each resume.
    paused.resume_here().unwrap();
    counted_past(&vm, word(&vm, COUNTER) + 10);
    let _paused = vm.pause().unwrap();
    let dirty = log.take().unwrap();
    assert_eq!(
        dirty.iter().collect::<Vec<_>>(),
        [4, COUNTER as usize / PAGE, OTHER as usize / PAGE]
    );
    log.put_back(&dirty);
    assert_eq!(log.take().unwrap(), dirty);
}

guest!(
    prints_a_lot,
    "mov edx, {port}",
    "mov ecx, 40",
    "2: add dword ptr [{head}], 4096",
    "mov eax, {console}",
    "out dx, eax",
    "loop 2b",
    "mov eax, {exit}",
    "out dx, eax",
    "hlt",
    head = const control!(console_out.head),
    port = const PORT as u32,
    console = const Doorbell::CONSOLE.0,
    exit = const Doorbell::EXIT.0,
);

#[test]
fn unread_output_moves_with_the_guest() {
    if !kvm() {
        return;
    }
    let (mut reader, writer) = std::io::pipe().unwrap();
    // SAFETY: queries a descriptor that is open.
    let capacity = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_GETPIPE_SZ) };
    assert!((4096..40 * 4096).contains(&capacity), "a pipe of {capacity} bytes");
    let source = vm_printing_to(prints_a_lot(), Console::new(Some(writer.into())));
    start(&source);
    // The guest waits once it has rung for output that no longer fits into the pipe.
    let fits = capacity as u64 / 4096;
    let deadline = Instant::now() + TIMEOUT;
    while source.stats().exits.console <= fits {
        assert!(Instant::now() < deadline, "it does not print");
        std::thread::yield_now();
    }
    let mut paused = source.pause().unwrap();
    let state = paused.capture().unwrap();
    assert_eq!(state.unserved, Doorbell::CONSOLE.0);
    let destination = Vm::prepare(source.identity().clone(), None, Console::new(None)).unwrap();
    copy(&PageSet::all(source.ram().pages()), &source, &destination);
    let mut prepared = destination.hold().unwrap();
    prepared.apply(&state, Duration::ZERO).unwrap();
    paused.moved().unwrap();
    prepared.resume(Resume { reason: ResumeReason::Migrated, away: Duration::ZERO }).unwrap();
    let end = destination.wait_end();
    assert!(matches!(*end, End::Exited(0)), "{end}");
    let here = source.console().printed();
    drop(source);
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut reader, &mut read).unwrap();
    assert_eq!(read.len() as u64, here);
    assert_eq!(here + destination.console().printed(), 40 * 4096, "all of it, and once");
}

guest!(spins, "2: jmp 2b");

#[test]
fn a_guest_that_does_not_answer_is_kicked() {
    if !kvm() {
        return;
    }
    let vm = vm(spins());
    start(&vm);
    assert!(vm.entered(TIMEOUT).is_some());
    let asked = Instant::now();
    let paused = vm.quiesce(Duration::from_millis(20)).unwrap();
    assert!(!paused.quiescent());
    let took = asked.elapsed();
    assert!(took >= Duration::from_millis(20), "it gets its grace period: {took:?}");
    assert!(paused.page_hints().is_empty(), "the hints of such a guest are ignored");
    drop(paused);
    assert!(matches!(vm.phase(), VmPhase::Paused));
    vm.hold().unwrap().resume_here().unwrap();
    assert!(matches!(vm.hold(), Err(Error::Busy(_))), "it runs");
    vm.stop(StopReason::Stop);
    assert!(matches!(vm.pause(), Err(Error::Ended(_))));
}

#[test]
fn a_paused_vm_has_one_holder_and_runs_only_through_it() {
    if !kvm() {
        return;
    }
    let vm = vm(counts());
    start(&vm);
    counted_past(&vm, 10);
    let paused = vm.pause().unwrap();
    assert!(matches!(vm.hold(), Err(Error::Busy(_))), "held already");
    // A stop during a move ends the VM; the holder then cannot resume it.
    vm.stop(StopReason::Stop);
    assert!(matches!(paused.resume_here(), Err(Error::Ended(_))));
    assert!(matches!(vm.hold(), Err(Error::Ended(_))));
}

#[test]
fn a_state_that_is_wrong_is_refused() {
    if !kvm() {
        return;
    }
    let vm = vm(counts());
    start(&vm);
    counted_past(&vm, 10);
    let good = vm.pause().unwrap().capture().unwrap();
    let refuse = |what: &str, spoil: &dyn Fn(&mut VmState)| {
        let mut state = good.clone();
        spoil(&mut state);
        let destination = Vm::prepare(vm.identity().clone(), None, Console::new(None)).unwrap();
        let error = destination.hold().unwrap().apply(&state, Duration::ZERO).unwrap_err();
        assert!(matches!(error, Error::Apply(_)), "{what}: {error}");
    };
    refuse("doorbell", &|s| s.unserved = 1 << 31);
    refuse("control registers", &|s| s.vcpus[0].sregs.cr0 = 1 << 31);
    refuse("control registers", &|s| s.vcpus[0].sregs.cr4 = u64::MAX);
    refuse("an MSR of the host's", &|s| s.vcpus[0].msrs[0].index = 0x10);
    refuse("an MSR twice", &|s| s.vcpus[0].msrs[1] = s.vcpus[0].msrs[0]);
    refuse("state components", &|s| s.vcpus[0].xcrs.xcrs[0].value = 1 << 18 | 3);
    refuse("too many XCRs", &|s| s.vcpus[0].xcrs.nr_xcrs = 999);
    refuse("too much FPU state", &|s| s.vcpus[0].xsave = vec![1; 5000]);
    refuse("FPU state of components that are off", &|s| {
        s.vcpus[0].xsave.resize(520, 0);
        s.vcpus[0].xsave[512..520].fill(0xff);
    });
}

#[test]
fn dropping_the_last_handle_ends_the_vm() {
    if !kvm() {
        return;
    }
    let vm = vm(counts());
    start(&vm);
    counted_past(&vm, 10);
    let ram = std::sync::Arc::downgrade(vm.ram());
    drop(vm);
    assert!(ram.upgrade().is_none(), "its thread still runs");
}
