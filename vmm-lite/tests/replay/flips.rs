//! A bit that differs, in the log or in memory, is found and named.

use super::recorded::{Base, EVERY, Reader, Recorded, SOME, boot};
use migrate::input_log::{Reason, Record};
use std::sync::LazyLock;
use testkit::guest::kvm;
use vmm::vm::Outcome;
use vmm_lite_interface::{doorbell::Doorbell, layout::PAGE_SIZE};
use vmm_lite_lab::images::image;

/// A short program that reads its clock, recorded to its end.
static RECORDED: LazyLock<Recorded> = LazyLock::new(|| {
    let only = ["--only", "time", "--only", "threads"];
    let recorded = boot(&image("std-check").unwrap(), 32 << 20, &only, EVERY);
    let _ = recorded.vm.wait_end();
    recorded
});

/// Replays it from `base`, with a log that is changed. Returns where and how that diverged.
fn diverges(base: &Base, change: impl FnOnce(&mut Vec<Record>)) -> (u64, String) {
    let mut records = RECORDED.records.all();
    change(&mut records);
    let until = records.len();
    let (_vm, replayed) = base.replay_from(Reader { records, until });
    let replayed = replayed.expect("the replay reached the end of the VM");
    match replayed.outcome {
        Outcome::Diverged(how) => (replayed.position, how),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_clock_that_was_ahead_is_found() {
    if !kvm() {
        return;
    }
    let records = RECORDED.records.all();
    let exits = |record: &Record| matches!(record, Record::Exit(exit) if !exit.samples.is_empty());
    let with: Vec<_> = (0..records.len()).filter(|at| exits(&records[*at])).collect();
    // How many there are depends on how fast the host is.
    assert!(with.len() >= 8, "{} exits", with.len());
    for nth in 0..8 {
        let at = with[nth * (with.len() - 1) / 7];
        let (position, how) = diverges(&RECORDED.base, |records| {
            let Record::Exit(exit) = &mut records[at] else { unreachable!() };
            // Minutes: the kernel remembers the latest time that it has seen.
            exit.samples[0] += 1 << 40;
        });
        assert!(position >= at as u64, "at {position}, changed at {at}: {how}");
    }
}

#[test]
fn another_exit_is_named() {
    if !kvm() {
        return;
    }
    let middle = RECORDED.records.len() / 2;
    let (position, how) = diverges(&RECORDED.base, |records| {
        let exit = records[middle..].iter_mut().find_map(|record| match record {
            Record::Exit(exit) => Some(exit),
            _ => None,
        });
        exit.expect("an exit in the second half").reason = Reason::Doorbell(Doorbell::RECLAIMED.0);
    });
    let middle = middle as u64;
    assert!((middle..middle + 10).contains(&position), "at {position}, changed from {middle} on");
    assert!(how.contains("it left for Doorbell"), "{how}");
}

#[test]
fn a_flipped_bit_in_memory_is_found_and_its_place_named() {
    if !kvm() {
        return;
    }
    // Unused memory and the image's last page: nothing but a digest shows it.
    for page in [RECORDED.vm.ram().pages() - 1, 0] {
        let mut base = RECORDED.base.clone();
        base.flip(page);
        let (position, how) = diverges(&base, |_| {});
        assert_eq!(position, 1, "at the first exit");
        let end = RECORDED.vm.ram().size();
        assert_eq!(how, format!("its memory differs, between 0x0 and {end:#x}"));
    }
    // By parts: found when its part is looked at.
    let recorded = boot(&image("hello").unwrap(), 16 << 20, &[], SOME);
    let _ = recorded.vm.wait_end();
    let mut base = recorded.base.clone();
    base.flip((16 << 20) / PAGE_SIZE as usize - 1);
    let replayed = base.replay(&recorded.records).1.unwrap();
    assert!(matches!(replayed.outcome, Outcome::Diverged(_)), "at its last exit");
}
