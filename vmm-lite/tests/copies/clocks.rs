//! What a VM is told when it was restored, reverted or copied.

use super::*;

/// Allowance for clocks that are read one after the other.
const CLOCKS_DIFFER: Duration = Duration::from_millis(100);

#[test]
fn a_vm_is_told_why_it_runs_and_what_time_it_is() {
    use std::sync::atomic::Ordering::SeqCst;
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    counts_on(&vm);
    let (file, copied) = snapshot(&vm, None, ON_WRITE);
    let before = copied.state.clock;
    let generation = |vm: &Vm| {
        let control = vm.ram().control_page();
        let of = |words: &[std::sync::atomic::AtomicU64]| {
            words.iter().map(|w| w.load(SeqCst)).collect::<Vec<_>>()
        };
        (of(&control.generation), of(&control.entropy))
    };
    let mut seen = vec![generation(&vm)];
    for _ in 0..2 {
        let began = std::time::UNIX_EPOCH.elapsed().unwrap() - CLOCKS_DIFFER;
        let reader = load::open(file.try_clone().unwrap()).unwrap();
        let guest = load::guest(&reader).unwrap();
        let other = Vm::prepare(guest.manifest.identity.clone(), None, Console::new(None)).unwrap();
        load::memory(&reader, other.unstarted_memory().unwrap()).unwrap();
        let mut held = other.hold().unwrap();
        let away = guest.age();
        held.apply(&guest.state, away).unwrap();
        held.resume(Resume { reason: ResumeReason::Restored, away }).unwrap();
        let _ = other.wait_end();
        let control = other.ram().control_page();
        assert_eq!(control.resume_reason.load(SeqCst), ResumeReason::Restored as u32);
        assert_eq!(control.away_ns.load(SeqCst), away.as_nanos() as u64);
        let mono = control.clock.mono_base_ns.load(SeqCst);
        assert!(mono >= before.mono_ns + away.as_nanos() as u64, "the clock never goes back");
        let wall = Duration::from_nanos(mono + control.clock.wall_offset_ns.load(SeqCst));
        let after = std::time::UNIX_EPOCH.elapsed().unwrap() + CLOCKS_DIFFER;
        assert!((began..after).contains(&wall), "{wall:?} there, {began:?} to {after:?} here");
        let now = generation(&other);
        assert!(seen.iter().all(|(g, e)| *g != now.0 && *e != now.1), "new for each");
        seen.push(now);
    }
}

/// If the source of its memory has ended before all of it arrived, waiting is pointless.
#[test]
fn a_vm_whose_memory_is_lost_is_not_waited_for() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    counts_on(&vm);
    drop(vm.ram().expect(Supply::Snapshot, 3).unwrap());
    let within = Some((Instant::now(), TIMEOUT));
    let waited = vm.wait_complete(CallOff::NEVER.within(within), &mut |_| true);
    assert!(matches!(waited, Err(Incomplete::Lost(_))), "{waited:?}");
}

/// For example one that is paused while it is restored, or that moves while it is paused.
#[test]
fn a_vm_that_is_paused_before_it_runs_is_told_why_it_runs_once_it_does() {
    use std::sync::atomic::Ordering::SeqCst;
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    counts_on(&vm);
    let (file, _) = snapshot(&vm, None, ROUNDS);
    let reader = load::open(file).unwrap();
    let mut guest = load::guest(&reader).unwrap();
    let address = start::change(&mut guest, &start::Change::default()).unwrap();
    let other = Vm::prepare(guest.manifest.identity.clone(), None, Console::new(None)).unwrap();
    load::memory(&reader, other.unstarted_memory().unwrap()).unwrap();
    let (held, clock) = (other.hold().unwrap(), GuestClock::Continue);
    held.hold_for_operator().unwrap();
    start::run(held, &guest, &address, ResumeReason::Restored, clock).unwrap();
    // An operation that ends meanwhile is not the reason it runs.
    other.pause().unwrap().resume_here().unwrap();
    assert!(matches!(other.phase(), VmPhase::Paused), "{:?}", other.phase());
    let mut waits = |what: &str| panic!("it waits for {what}");
    other.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    let reason = other.ram().control_page().resume_reason.load(SeqCst);
    assert_eq!(reason, ResumeReason::Restored as u32);
    // The guest finds that out as well, and ends with it.
    assert!(matches!(*other.wait_end(), End::Exited(5)));
    let word = |vm: &Vm| vm.ram().control_page().generation[0].load(SeqCst);
    assert_ne!(word(&other), word(&vm), "it is another");
}

#[test]
fn the_original_of_a_copy_draws_new_random_numbers_and_keeps_its_generation() {
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    if !kvm() {
        return;
    }
    let of = |words: &[AtomicU64]| words.iter().map(|w| w.load(SeqCst)).collect::<Vec<_>>();
    let vm = vm(2 << 20);
    let control = vm.ram().control_page();
    for way in [ON_WRITE, ROUNDS] {
        counts_on(&vm);
        let generation = of(&control.generation);
        let (file, _) = snapshot(&vm, None, way);
        assert_eq!(of(&control.generation), generation, "it is no copy");
        let reader = load::open(file).unwrap();
        let mut copy = GuestRam::new(vm.ram().size()).unwrap();
        load::memory(&reader, copy.writable()).unwrap();
        let kept = copy.control_page();
        assert_eq!(of(&kept.generation), generation);
        let (kept, now) = (of(&kept.entropy), of(&control.entropy));
        assert!(kept.iter().zip(&now).all(|(kept, now)| kept != now), "{kept:x?} {now:x?}");
    }
    // The same after a pause: its requester may have read the memory.
    let before = of(&control.entropy);
    drop(vm.pause().unwrap());
    vm.hold().unwrap().resume_here().unwrap();
    assert_ne!(of(&control.entropy), before);
    counts_on(&vm);
}

#[test]
fn a_day_in_a_file_passes_for_the_guest_if_requested() {
    use std::sync::atomic::Ordering::SeqCst;
    const DAY: Duration = Duration::from_secs(86_400);
    if !kvm() {
        return;
    }
    let source = vm(2 << 20);
    counts_on(&source);
    let mut then = 0;
    let old = with_state(&source, |state| {
        state.clock.wall_offset_ns -= DAY.as_nanos() as u64;
        then = state.clock.mono_ns;
    });
    let begun = Instant::now();
    let check = |control: &ControlPage, clock: GuestClock| {
        let mono = control.clock.mono_base_ns.load(SeqCst);
        let passed =
            Duration::from_nanos(mono.checked_sub(then).expect("the clock never goes back"));
        match clock {
            GuestClock::Continue => assert!(passed <= begun.elapsed(), "{passed:?}"),
            GuestClock::Jump => assert!(passed >= DAY, "{passed:?}"),
        }
        let away = Duration::from_nanos(control.away_ns.load(SeqCst));
        assert!(away >= DAY, "it is told how long it was away: {away:?}");
        let wall = Duration::from_nanos(mono + control.clock.wall_offset_ns.load(SeqCst));
        let here = std::time::UNIX_EPOCH.elapsed().unwrap();
        assert!(here.abs_diff(wall) < Duration::from_secs(600), "{here:?} here, {wall:?} there");
    };
    for clock in [GuestClock::Continue, GuestClock::Jump] {
        let reader = load::open(old.try_clone().unwrap()).unwrap();
        let guest = load::guest(&reader).unwrap();
        let other = Vm::prepare(guest.manifest.identity.clone(), None, Console::new(None)).unwrap();
        load::memory(&reader, other.unstarted_memory().unwrap()).unwrap();
        let held = other.hold().unwrap();
        start::run(held, &guest, &Address::default(), ResumeReason::Restored, clock).unwrap();
        check(other.ram().control_page(), clock);
        let other = vm(2 << 20);
        counts_on(&other);
        revert::revert(&other, whole(&other), old.try_clone().unwrap(), clock).unwrap();
        check(other.ram().control_page(), clock);
    }
}
