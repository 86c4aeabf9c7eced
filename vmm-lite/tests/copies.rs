//! Copies of machines as they are at one instant, however they are made; machines that are put
//! back, or cannot be; and snapshot files that were made long ago.

mod common;
#[path = "common/counting.rs"]
mod counting;

use common::kvm;
use counting::{PATIENCE, counted, counts_on, vm};
use migrate::snapshot::{MAJOR, Notes};
use std::{
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use vmm::{
    devices::console::Console,
    kvm::Host,
    memory::{Complete, GuestRam, PAGE, Supply, Userfault},
    snapshot::{
        Error, GuestClock,
        copy::{self, Copied, Mode},
        guest::{Guest, Who},
        load, revert,
        sink::{FileSink, Sink},
        start,
    },
    vm::{Address, CallOff, End, Incomplete, Resume, ResumeReason, Slow, Vm, VmPhase, VmState},
};
use vmm_lite_interface::{INTERFACE_VERSION, control::ControlPage};

type Way = fn(&Vm, &mut dyn Sink) -> Result<Copied, Error>;

/// A snapshot of `vm` in a file without a name.
fn snapshot(vm: &Vm, base: Option<File>, way: Way) -> (File, Copied) {
    let file = tempfile::tempfile().unwrap();
    let base = base.map(|base| load::open(base).unwrap());
    let mut sink = FileSink::new(file.try_clone().unwrap(), vm.ram().pages(), base).unwrap();
    let copied = way(vm, &mut sink).unwrap();
    let guest = Guest { who: Who::of(vm), state: copied.state.clone() };
    let notes = Notes { taken_ns: 1, pages_dont_care: 2, ..Notes::default() };
    sink.finish([7; 16], &guest, &copied.dont_care, notes).unwrap();
    (file, copied)
}

/// A snapshot of `vm` with another state than it has.
fn with_state(vm: &Vm, change: impl FnOnce(&mut VmState)) -> File {
    let (file, copied) = snapshot(vm, None, ON_WRITE);
    let reader = load::open(file).unwrap();
    let mut guest = Guest { who: Who::of(vm), state: copied.state };
    change(&mut guest.state);
    let changed = tempfile::tempfile().unwrap();
    let mut sink = FileSink::new(changed.try_clone().unwrap(), vm.ram().pages(), None).unwrap();
    reader.each(|page, _, content| sink.pages(&[(page as usize, *content)])).unwrap();
    sink.finish([8; 16], &guest, &copied.dont_care, Notes::default()).unwrap();
    changed
}

/// Runs what is in a snapshot to its end.
fn run(file: File) -> i32 {
    let snapshot = load::open(file).unwrap();
    let mut guest = load::guest(&snapshot).unwrap();
    let address = start::change(&mut guest, &start::Change::default()).unwrap();
    let vm = Vm::prepare(guest.who.identity.clone(), None, Console::new(None)).unwrap();
    load::memory(&snapshot, vm.ram()).unwrap();
    let (held, clock) = (vm.hold().unwrap(), GuestClock::Continue);
    start::run(held, &guest, &address, ResumeReason::Restored, clock).unwrap();
    match &*vm.wait_end() {
        End::Exited(code) => *code,
        other => panic!("{other}"),
    }
}

/// All of its memory is here.
fn whole(vm: &Vm) -> Complete<'_> {
    vm.ram().complete().unwrap()
}

const AS_IT_GOES: Way =
    |vm, sink| copy::copy(vm, whole(vm), false, copy::Way::Auto, sink, &mut |_| true);
const ROUNDS: Way =
    |vm, sink| copy::copy(vm, whole(vm), false, copy::Way::Rounds, sink, &mut |_| true);
const ON_WRITE: Way = |vm, sink| match Userfault::open(vm.ram()) {
    Ok(_) => copy::copy(vm, whole(vm), false, copy::Way::CopyOnWrite, sink, &mut |_| true),
    // Where the host forbids it the test of page faults says so.
    Err(_) => ROUNDS(vm, sink),
};

#[test]
fn every_way_of_copying_copies_one_instant() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    for _ in 0..5 {
        let ways = [
            (ON_WRITE, Mode::CopyOnWrite),
            (ROUNDS, Mode::Rounds),
            // It writes to a few pages only.
            (AS_IT_GOES, Mode::Rounds),
        ];
        for (way, mode) in ways {
            counts_on(&vm);
            let (file, copied) = snapshot(&vm, None, way);
            if Userfault::open(vm.ram()).is_ok() {
                assert_eq!(copied.mode, mode);
            }
            assert!(copied.quiescent && copied.phases.is_some());
            counts_on(&vm);
            assert_eq!(run(file), 5);
        }
    }
    // One that is paused is copied as it is, and stays paused.
    vm.quiesce(PATIENCE).unwrap().hold_for_operator().unwrap();
    let (file, copied) = snapshot(&vm, None, AS_IT_GOES);
    assert_eq!((copied.mode, copied.phases), (Mode::Paused, None));
    assert_eq!(run(file), 5);
    assert!(matches!(vm.phase(), VmPhase::Paused), "{:?}", vm.phase());
    let mut waits = |what: &str| panic!("it waits for {what}");
    vm.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    counts_on(&vm);
    // And one that is to stay paused afterwards.
    let (file, _) = snapshot(&vm, None, |vm, sink| {
        copy::copy(vm, whole(vm), true, copy::Way::Auto, sink, &mut |_| true)
    });
    assert_eq!(run(file), 5);
    assert!(matches!(vm.phase(), VmPhase::Paused), "{:?}", vm.phase());
    vm.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    counts_on(&vm);
}

#[test]
fn memory_that_is_protected_before_the_pause_is_copied_as_it_is_in_it() {
    if !kvm() {
        return;
    }
    let vm = vm(64 << 20);
    // More than is protected in the pause itself.
    for page in 4000..vm.ram().pages() {
        vm.ram().write_page(page, &[page as u8 | 1; PAGE]).unwrap();
    }
    for _ in 0..3 {
        counts_on(&vm);
        let (file, _) = snapshot(&vm, None, ON_WRITE);
        let reader = load::open(file.try_clone().unwrap()).unwrap();
        let mut right = 0;
        reader
            .each(|page, _, content| {
                right += usize::from(page >= 4000 && *content == [page as u8 | 1; PAGE]);
                Ok::<_, migrate::snapshot::Error>(())
            })
            .unwrap();
        assert_eq!(right, vm.ram().pages() - 4000);
        assert_eq!(run(file), 5);
    }
}

#[test]
fn a_copy_that_is_given_up_leaves_the_machine_as_it_was() {
    if !kvm() {
        return;
    }
    struct Full;
    impl Sink for Full {
        fn pages(&mut self, _: &[vmm::snapshot::sink::Page]) -> Result<(), Error> {
            Err(Error::Write(std::io::ErrorKind::StorageFull.into()))
        }
    }
    let vm = vm(2 << 20);
    let mut wanted = |_| true;
    for _ in 0..3 {
        for (stay, way) in [
            (false, copy::Way::Auto),
            (true, copy::Way::Auto),
            (false, copy::Way::Rounds),
            (false, copy::Way::CopyOnWrite),
        ] {
            let copied = copy::copy(&vm, whole(&vm), stay, way, &mut Full, &mut wanted);
            assert!(matches!(copied, Err(Error::Write(_) | Error::Userfault(_))), "{copied:?}");
            counts_on(&vm);
        }
    }
    let (file, _) = snapshot(&vm, None, ON_WRITE);
    assert_eq!(run(file), 5);
}

/// A state that a machine of its own would run, and only the VM itself refuses: when its memory is
/// another already.
fn refused(vm: &Vm) -> File {
    with_state(vm, |state| state.unserved = 1 << 31)
}

fn put_back(vm: &Vm, file: &File) -> Result<revert::Report, Error> {
    revert::revert(vm, whole(vm), file.try_clone().unwrap(), GuestClock::Continue)
}

#[test]
fn a_revert_that_fails_half_way_leaves_a_machine_that_runs_as_it_was() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    counts_on(&vm);
    let (good, _) = snapshot(&vm, None, ON_WRITE);
    let bad = refused(&vm);
    for _ in 0..3 {
        counts_on(&vm);
        let before = counted(&vm);
        let error = put_back(&vm, &bad).unwrap_err().to_string();
        assert!(error.contains("doorbell bits 0x80000000"), "{error}");
        assert!(counted(&vm) >= before, "it has its own memory");
        // Memory and registers still belong together, or it would end.
        counts_on(&vm);
        // What was put back is known to have changed.
        for way in [ON_WRITE, ROUNDS] {
            assert_eq!(run(snapshot(&vm, None, way).0), 5);
        }
    }
    // One that is put back goes on behind the question whether it is quiescent, and ends if all is
    // right.
    put_back(&vm, &good).unwrap();
    assert!(matches!(*vm.wait_end(), End::Exited(5)), "{}", vm.wait_end());
}

#[test]
fn a_revert_that_fails_half_way_leaves_a_machine_that_stands_as_it_was() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    let bad = refused(&vm);
    counts_on(&vm);
    vm.pause().unwrap().hold_for_operator().unwrap();
    let memory = || {
        let mut all = vec![0; vm.ram().size() as usize];
        vm.ram().read(0, &mut all).unwrap();
        all
    };
    let begun = Instant::now();
    let (state, pages) = (vm.hold().unwrap().capture().unwrap(), memory());
    put_back(&vm, &bad).unwrap_err();
    assert!(matches!(vm.phase(), VmPhase::Paused), "{:?}", vm.phase());
    let now = vm.hold().unwrap().capture().unwrap();
    let went = now.clock.mono_ns - state.clock.mono_ns;
    // The two clocks may differ by some parts in a million.
    assert!(u128::from(went) <= begun.elapsed().as_nanos() * 101 / 100, "its clock went on once");
    assert_eq!(VmState { clock: state.clock, ..now }, state);
    assert!(memory() == pages, "its memory is its own");
    let mut waits = |what: &str| panic!("it waits for {what}");
    vm.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    counts_on(&vm);
}

/// What a failure lets go of, such as pages that did not pass their checksum, may be anything: no
/// instruction runs on it, also where the VM is being resumed at that moment.
#[test]
fn no_instruction_runs_once_a_machine_has_failed() {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    /// How long an instruction is waited for that must not run; one that runs is seen at once.
    const LOOK: Duration = Duration::from_millis(300);
    if !kvm() {
        return;
    }
    for round in 0..12 {
        let vm = vm(2 << 20);
        counts_on(&vm);
        let paused = (round % 3 > 0).then(|| vm.pause().unwrap());
        let (resuming, failing) = (AtomicBool::new(paused.is_none()), vm.clone());
        let ran_on = || {
            let then = counted(&failing);
            let end = Instant::now() + LOOK;
            while counted(&failing) == then && Instant::now() < end {
                std::thread::yield_now();
            }
            counted(&failing) != then
        };
        let mut ran = None;
        let fails = || {
            failing.fail(std::io::Error::other("its memory is bad"), || {
                while !resuming.load(SeqCst) {
                    std::thread::yield_now();
                }
                ran = Some(ran_on());
            });
        };
        std::thread::scope(|scope| {
            let failed = scope.spawn(fails);
            if round % 3 == 1 {
                while !vm.stop_wanted() {
                    std::thread::yield_now();
                }
            }
            if let Some(paused) = paused {
                resuming.store(true, SeqCst);
                // Before or after it has failed; in the latter case it does not run.
                let resumed = paused.resume_here();
                assert!(round % 3 == 2 || resumed.is_err(), "a machine that has failed runs");
            }
            failed.join().unwrap();
        });
        assert_eq!(ran, Some(false), "round {round}: it ran on what was let go of");
        let VmPhase::Ended(end) = vm.phase() else { panic!("{:?}", vm.phase()) };
        assert!(matches!(*end, End::Vmm(_)), "{end}");
    }
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The golden file of this version of format and state. A new version has a new name; the files of
/// older ones stay as they are.
const NEWEST: &str = "whole-1.1-state-3.snap";

/// Makes it.
#[test]
#[ignore = "makes files that are kept"]
fn make_the_newest_golden_file() {
    let vm = vm(2 << 20);
    counts_on(&vm);
    let (whole, _) = snapshot(&vm, None, ON_WRITE);
    std::io::copy(&mut at_start(whole), &mut File::create(golden(NEWEST)).unwrap()).unwrap();
}

fn at_start(mut file: File) -> File {
    use std::io::Seek;
    file.rewind().unwrap();
    file
}

#[test]
fn snapshots_of_older_versions_load() {
    for (name, minor) in
        [("whole-1.0.snap", 0), ("whole-1.1.snap", 1), ("whole-1.1-state-2.snap", 1), (NEWEST, 1)]
    {
        let open = || File::open(golden(name)).unwrap();
        let snapshot = load::open(open()).unwrap();
        snapshot.verify().unwrap();
        assert_eq!((snapshot.header().minor, snapshot.header().id), (minor, [7; 16]));
        assert_eq!(snapshot.header().notes.map(|n| n.pages_dont_care), (minor > 0).then_some(2));
        let guest = load::guest(&snapshot).unwrap();
        assert_eq!(
            (guest.who.identity.name.as_str(), guest.who.identity.memory_size),
            ("counts", 2 << 20)
        );
        assert!(guest.state.vcpu.regs.rip > 0x10_0000 && guest.state.clock.mono_ns > 0);
        if !kvm() {
            continue;
        }
        let version = guest.who.identity.interface_version;
        if version != INTERFACE_VERSION {
            // The file is read; its guest speaks to a VMM that is no more.
            assert!(start::change(&mut guest.clone(), &start::Change::default()).is_err());
        } else if let Err(e) = guest.who.fits(&Host::open().unwrap().features().unwrap()) {
            vmm_lite_lab::skipped(name, e);
        } else {
            assert_eq!(run(open()), 5, "{name}");
        }
    }
    let difference = load::open(File::open(golden("difference-1.1.snap")).unwrap()).unwrap();
    difference.verify().unwrap();
    assert!(matches!(load::guest(&difference), Err(Error::Difference)));
    let base = load::open(File::open(golden("whole-1.1.snap")).unwrap()).unwrap();
    assert_eq!(difference.header().base, Some(base.header().as_base()));
}

#[test]
fn a_snapshot_of_another_major_version_is_refused() {
    let mut bytes = std::fs::read(golden("whole-1.1.snap")).unwrap();
    bytes[8..10].copy_from_slice(&(MAJOR + 1).to_le_bytes());
    let file = common::TempFile::new(&bytes);
    let error = load::open(File::open(file.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("format version 2, which this vmm-lite does not know"));
}

/// What clocks that are read one after the other may differ by, besides.
const CLOCKS_DIFFER: Duration = Duration::from_millis(100);

#[test]
fn a_machine_is_told_why_it_runs_and_what_time_it_is() {
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
        let other = Vm::prepare(guest.who.identity.clone(), None, Console::new(None)).unwrap();
        load::memory(&reader, other.ram()).unwrap();
        let mut held = other.hold().unwrap();
        let away = guest.age();
        held.apply(&guest.state, away).unwrap();
        held.resume(Resume { reason: ResumeReason::Restored, away }).unwrap();
        let _ = other.wait_end();
        let control = other.ram().control_page();
        assert_eq!(control.resume_reason.load(SeqCst), ResumeReason::Restored as u32);
        assert_eq!(control.away_ns.load(SeqCst), away.as_nanos() as u64);
        let mono = control.clock.mono_base_ns.load(SeqCst);
        assert!(mono >= before.mono_ns + away.as_nanos() as u64, "never back");
        let wall = Duration::from_nanos(mono + control.clock.wall_offset_ns.load(SeqCst));
        let after = std::time::UNIX_EPOCH.elapsed().unwrap() + CLOCKS_DIFFER;
        assert!((began..after).contains(&wall), "{wall:?} there, {began:?} to {after:?} here");
        let now = generation(&other);
        assert!(seen.iter().all(|(g, e)| *g != now.0 && *e != now.1), "new for each");
        seen.push(now);
    }
}

/// Where what brings its memory has ended before all of it came, no wait for that has a point.
#[test]
fn a_machine_whose_memory_is_lost_is_not_waited_for() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    counts_on(&vm);
    drop(vm.ram().expect(Supply::Snapshot, 3).unwrap());
    let within = Some((Instant::now(), PATIENCE));
    let waited = vm.wait_complete(CallOff::NEVER.within(within), &mut |_| true);
    assert!(matches!(waited, Err(Incomplete::Lost(_))), "{waited:?}");
}

/// As one that is paused while it is restored, or that moves while it is paused.
#[test]
fn a_machine_that_is_paused_before_it_runs_is_told_why_it_runs_once_it_does() {
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
    let other = Vm::prepare(guest.who.identity.clone(), None, Console::new(None)).unwrap();
    load::memory(&reader, other.ram()).unwrap();
    let (held, clock) = (other.hold().unwrap(), GuestClock::Continue);
    held.hold_for_operator().unwrap();
    start::run(held, &guest, &address, ResumeReason::Restored, clock).unwrap();
    // An operation that ends meanwhile is not why it runs.
    other.pause().unwrap().resume_here().unwrap();
    assert!(matches!(other.phase(), VmPhase::Paused), "{:?}", other.phase());
    let mut waits = |what: &str| panic!("it waits for {what}");
    other.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    let reason = other.ram().control_page().resume_reason.load(SeqCst);
    assert_eq!(reason, ResumeReason::Restored as u32);
    // So does the guest find out, which ends with this.
    assert!(matches!(*other.wait_end(), End::Exited(5)));
    let word = |vm: &Vm| vm.ram().control_page().generation[0].load(SeqCst);
    assert_ne!(word(&other), word(&vm), "it is another");
}

#[test]
fn the_original_of_a_copy_draws_new_random_numbers_and_stays_who_it_is() {
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
        let copy = GuestRam::new(vm.ram().size()).unwrap();
        load::memory(&reader, &copy).unwrap();
        let kept = copy.control_page();
        assert_eq!(of(&kept.generation), generation);
        let (kept, now) = (of(&kept.entropy), of(&control.entropy));
        assert!(kept.iter().zip(&now).all(|(kept, now)| kept != now), "{kept:x?} {now:x?}");
    }
    // So is a pause: who asked for it may have looked.
    let before = of(&control.entropy);
    drop(vm.pause().unwrap());
    vm.hold().unwrap().resume_here().unwrap();
    assert_ne!(of(&control.entropy), before);
    counts_on(&vm);
}

#[test]
fn a_day_in_a_file_passes_for_the_guest_or_not_as_is_wanted() {
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
        let passed = Duration::from_nanos(mono.checked_sub(then).expect("never back"));
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
        let other = Vm::prepare(guest.who.identity.clone(), None, Console::new(None)).unwrap();
        load::memory(&reader, other.ram()).unwrap();
        let held = other.hold().unwrap();
        start::run(held, &guest, &Address::default(), ResumeReason::Restored, clock).unwrap();
        check(other.ram().control_page(), clock);
        let other = vm(2 << 20);
        counts_on(&other);
        revert::revert(&other, whole(&other), old.try_clone().unwrap(), clock).unwrap();
        check(other.ram().control_page(), clock);
    }
}
