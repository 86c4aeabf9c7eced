//! Checks the dirty log against the memory itself: every write of a real guest, while its log is
//! taken and cleared meanwhile, is in one of the sets. A missed page would be stale at a move's
//! destination (rule R2).

use std::time::{Duration, Instant};
use testkit::{
    guest,
    guest::{Elf, start},
};
use vmm::{
    boot::{Image, Parameters},
    capture::changes::Changes,
    devices::console::Console,
    kvm::DirtyView,
    memory::{PAGE, PageSet},
    vm::{Config, Resume, ResumeReason, StopReason, Vm},
};
use vmm_lite_lab::{images::image, privilege, skipped, vmm::TIMEOUT};

const MEMORY: u64 = 16 << 20;
/// Pages that dirtier rewrites: all of them in a few tens of microseconds.
const REWRITTEN: usize = 64;

/// A copy of a VM's memory, as a destination holds it.
struct Copy(Vec<[u8; PAGE]>);

impl Copy {
    fn of(vm: &Vm) -> Self {
        let mut copy = Self(vec![[0; PAGE]; vm.ram().pages()]);
        copy.bring(vm, &PageSet::all(vm.ram().pages()));
        copy
    }

    /// Takes pieces of `piece` pages out of the log, each right before it is read.
    fn piecewise(vm: &Vm, log: &DirtyView<'_>, piece: usize) -> Self {
        let pages = vm.ram().pages();
        let mut copy = Self(vec![[0; PAGE]; pages]);
        for first in (0..pages).step_by(piece) {
            let piece = first..(first + piece).min(pages);
            log.leave_out(piece.clone()).unwrap();
            let mut set = PageSet::none(pages);
            piece.for_each(|page| set.insert(page));
            copy.bring(vm, &set);
        }
        copy
    }

    fn bring(&mut self, vm: &Vm, pages: &PageSet) {
        for page in pages.iter() {
            vm.ram().read_page(page, &mut self.0[page]).unwrap();
        }
    }

    /// Pages that differ from the VM's.
    fn differing(&self, vm: &Vm) -> PageSet {
        let mut set = PageSet::none(self.0.len());
        let mut content = [0; PAGE];
        for (page, mine) in self.0.iter().enumerate() {
            vm.ram().read_page(page, &mut content).unwrap();
            if content != *mine {
                set.insert(page);
            }
        }
        set
    }
}

fn dirtier() -> Vm {
    let image = Image::open(&image("dirtier").unwrap()).unwrap();
    let args = ["--pages", "64", "--quiet"].map(Into::into).to_vec();
    let parameters = Parameters { name: "dirtier".into(), args, ..Default::default() };
    let config = Config { memory: MEMORY, nets: vec![], parameters };
    let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
    let how = Resume { reason: ResumeReason::Boot, away: Duration::ZERO };
    vm.hold().unwrap().resume(how).unwrap();
    let boot = Instant::now();
    while !vm
        .console()
        .read(0, Duration::from_millis(1))
        .is_some_and(|p| p.bytes.windows(5).any(|w| w == b"nonce"))
    {
        assert!(boot.elapsed() < TIMEOUT, "dirtier does not start");
    }
    vm
}

#[test]
fn no_page_that_changes_is_missed_while_the_log_is_taken_under_a_guest() {
    if let Err(e) = privilege::kvm() {
        return skipped("the dirty log under a real guest", e);
    }
    let vm = dirtier();
    for moves in 0..20 {
        let log = vm.dirty_log().start_full().unwrap();
        // All memory at once, or piece by piece while the guest writes to pages still in the log.
        let piece = if moves % 4 < 2 { vm.ram().pages() } else { 192 };
        let mut there = Copy::piecewise(&vm, &log, piece);
        let mut named = PageSet::none(vm.ram().pages());
        let begun = Instant::now();
        // Rounds, until each page has certainly been rewritten: the log is checked against the
        // memory, not trusted.
        let mut changed = PageSet::none(vm.ram().pages());
        let mut before = Copy::of(&vm);
        while changed.len() < REWRITTEN {
            let round = log.take().unwrap();
            there.bring(&vm, &round);
            named.add(&round);
            let now = before.differing(&vm);
            before.bring(&vm, &now);
            changed.add(&now);
            assert!(
                begun.elapsed() < TIMEOUT,
                "dirtier does not run: {} pages changed",
                changed.len()
            );
        }
        // Every other time the guest is stopped where it is, instead of when it answers.
        let paused = if moves % 2 == 0 { vm.quiesce(TIMEOUT) } else { vm.pause() }.unwrap();
        let last = log.peek().unwrap();
        there.bring(&vm, &last);
        named.add(&last);
        let missed: Vec<usize> = there.differing(&vm).iter().collect();
        assert!(missed.is_empty(), "move {moves}: pages {missed:?} changed and no set names them");
        assert!(changed.iter().all(|page| named.contains(page)), "move {moves}");
        drop(log);
        assert_eq!(vm.dirty_log().users(), 0);
        paused.resume_here().unwrap();
    }
    vm.stop(StopReason::Stop);
}

/// A user of the log beside others, with its own copy.
struct Follower<'vm> {
    log: DirtyView<'vm>,
    copy: Copy,
}

impl<'vm> Follower<'vm> {
    fn full(vm: &'vm Vm, piece: usize) -> Self {
        let log = vm.dirty_log().start_full().unwrap();
        let copy = Copy::piecewise(vm, &log, piece);
        Self { log, copy }
    }

    fn empty(vm: &'vm Vm) -> Self {
        Self { log: vm.dirty_log().start_empty().unwrap(), copy: Copy::of(vm) }
    }

    fn take(&mut self, vm: &Vm) {
        self.copy.bring(vm, &self.log.take().unwrap());
    }
}

#[test]
fn each_of_several_users_of_the_log_sees_every_change() {
    if let Err(e) = privilege::kvm() {
        return skipped("several users of the dirty log", e);
    }
    let vm = dirtier();
    for round in 0..10 {
        // Each joins while the others use the log; one leaves before the end.
        let mut first = Follower::full(&vm, 192);
        first.take(&vm);
        let leaves = vm.dirty_log().start_empty().unwrap();
        let mut second = Follower::full(&vm, 4096);
        first.take(&vm);
        let third = Follower::empty(&vm);
        drop(leaves);
        for _ in 0..round {
            second.take(&vm);
            first.take(&vm);
        }
        let mut before = Copy::of(&vm);
        let begun = Instant::now();
        let mut changed = PageSet::none(vm.ram().pages());
        while changed.len() < REWRITTEN {
            let now = before.differing(&vm);
            before.bring(&vm, &now);
            changed.add(&now);
            assert!(begun.elapsed() < TIMEOUT, "dirtier does not run");
        }
        let paused = vm.pause().unwrap();
        assert_eq!(vm.dirty_log().users(), 3);
        for (who, mut user) in [first, second, third].into_iter().enumerate() {
            let last = user.log.peek().unwrap();
            assert!(changed.iter().all(|page| last.contains(page)), "user {who}: {last:?}");
            assert_eq!(user.log.take().unwrap(), last, "user {who}");
            assert!(user.log.peek().unwrap().is_empty(), "user {who}");
            user.copy.bring(&vm, &last);
            let missed: Vec<usize> = user.copy.differing(&vm).iter().collect();
            assert!(missed.is_empty(), "user {who}: pages {missed:?} changed unseen");
        }
        assert_eq!(vm.dirty_log().users(), 0);
        paused.resume_here().unwrap();
    }
    vm.stop(StopReason::Stop);
}

/// The guest writes to `LATE`, untouched so far, once the VMM has set `GO`.
const GO: u64 = 0x18_0000;
const DONE: u64 = 0x19_0000;
const LATE: u64 = 0xf0_0000;

guest!(
    touches_late,
    "2: cmp dword ptr [{go}], 0",
    "je 2b",
    "mov dword ptr [{late}], 1",
    "mov dword ptr [{done}], 1",
    "jmp 2b",
    go = const GO as u32,
    late = const LATE as u32,
    done = const DONE as u32,
);

#[test]
fn a_page_first_touched_during_the_first_pass_has_changed() {
    if let Err(e) = privilege::kvm() {
        return skipped("pages touched during the first pass", e);
    }
    let file = Elf::of(touches_late()).file();
    let image = Image::open(file.path()).unwrap();
    let parameters = Parameters { name: "test".into(), ..Default::default() };
    let config = Config { memory: MEMORY, nets: Vec::new(), parameters };
    let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
    start(&vm);
    let mut changes = Changes::start(&vm, vm.ram().complete().unwrap()).unwrap();
    let late = LATE as usize / PAGE;
    assert!(!changes.touched().unwrap().contains(late));
    // Its piece is still in the log, and untouched pages are not read.
    let first = changes.next_piece().unwrap().unwrap();
    assert!(first.end < late);
    let paused = vm.pause().unwrap();
    paused.memory().write(GO, &[1]).unwrap();
    paused.resume_here().unwrap();
    let (mut done, begun) = ([0], Instant::now());
    while done == [0] {
        vm.ram().read(DONE, &mut done).unwrap();
        assert!(begun.elapsed() < TIMEOUT, "the guest does not run");
    }
    while changes.next_piece().unwrap().is_some() {}
    assert!(changes.peek().unwrap().contains(late), "it is in use, and was not read");
    vm.stop(StopReason::Stop);
}
