//! Recorded guests are replayed for a debugger, and still run the same.

use super::recorded::{EVERY, Reader, Recorded, boot, ends_alike};
use kvm_bindings::kvm_regs;
use object::{Object, ObjectSymbol};
use std::{fs, time::Duration};
use testkit::guest::kvm;
use vmm::vm::{DebugLink, DebugStop, Debugged, Orders, Resume, ResumeReason, Vm};
use vmm_lite_lab::images::image;

/// The address of a function whose name has this in it.
fn symbol(part: &str) -> u64 {
    let bytes = fs::read(image("std-check").unwrap()).unwrap();
    let file = object::File::parse(&*bytes).unwrap();
    let found = file.symbols().find(|symbol| symbol.name().is_ok_and(|name| name.contains(part)));
    found.unwrap_or_else(|| panic!("no symbol {part}")).address()
}

fn recorded() -> Recorded {
    let only = ["--only", "time"];
    let recorded = boot(&image("std-check").unwrap(), 64 << 20, &only, EVERY);
    let _ = recorded.vm.wait_end();
    recorded
}

/// A replay, under a debugger.
struct Replay {
    vm: Vm,
}

impl Replay {
    fn new(recorded: &Recorded) -> Self {
        let records = recorded.records.all();
        let until = records.len();
        let vm = recorded.base.prepare(Reader { records, until });
        vm.hold().unwrap().debug(&DebugLink::new().unwrap());
        Self { vm }
    }

    fn debugged(&self) -> Debugged {
        self.vm.hold().unwrap().debugged().unwrap()
    }

    /// `None`: it has ended.
    fn run(&self, orders: Orders) -> Option<Debugged> {
        let mut held = self.vm.hold().unwrap();
        held.order(orders);
        held.resume(Resume { reason: ResumeReason::Resumed, away: Duration::ZERO }).unwrap();
        self.vm.wait_stopped().then(|| self.debugged())
    }

    fn rip(&self) -> u64 {
        self.registers().rip
    }

    fn registers(&self) -> kvm_regs {
        self.vm.hold().unwrap().registers().unwrap().regs
    }

    fn step(&self) -> Debugged {
        self.run(Orders::Step { within: 0..0, breakpoints: vec![], until: None }).unwrap()
    }

    fn to(&self, address: u64) -> Option<Debugged> {
        self.run(Orders::Continue { breakpoints: vec![address], until: None })
    }

    fn to_end(&self, recorded: &Recorded) {
        let none = || Orders::Continue { breakpoints: vec![], until: None };
        let ended = self.run(none()).unwrap();
        let outcome = self.vm.wait_replayed(Some(Duration::ZERO));
        assert_eq!(ended.stopped, Some(DebugStop::EndOfLog), "{outcome:?}");
        assert_eq!(self.run(none()), None);
        ends_alike(&recorded.vm, &(self.vm.clone(), None));
    }
}

#[test]
fn breakpoints_and_steps_do_not_change_what_a_guest_does() {
    if !kvm() {
        return;
    }
    // Each exit has a digest of all registers and all of the memory.
    let recorded = recorded();
    let replay = Replay::new(&recorded);
    for _ in 0..300 {
        assert_eq!(replay.step().stopped, Some(DebugStop::Stepped), "while it boots");
    }
    let address = symbol("sys_clock_gettime");
    let mut hits = 0;
    while hits < 40 && replay.to(address).unwrap().stopped == Some(DebugStop::Breakpoint) {
        assert_eq!(replay.rip(), address);
        hits += 1;
        for _ in 0..50 {
            assert_eq!(replay.step().stopped, Some(DebugStop::Stepped));
        }
    }
    assert!(hits > 2, "{hits}");
    replay.to_end(&recorded);
}

#[test]
fn a_moment_is_found_again() {
    if !kvm() {
        return;
    }
    let recorded = recorded();
    let replay = Replay::new(&recorded);
    let (clock, routine) = (symbol("sys_clock_gettime"), symbol("take_tsc"));
    let mut moments = Vec::new();
    for round in 0..8 {
        for address in [clock, routine] {
            assert_eq!(replay.to(address).unwrap().stopped, Some(DebugStop::Breakpoint));
        }
        let debugged = (0..round).fold(None, |_, _| Some(replay.step()));
        let at = debugged.map_or_else(|| replay.debugged().at, |debugged| debugged.at);
        moments.push((at, replay.registers()));
    }
    for (n, (moment, registers)) in moments.iter().enumerate() {
        let replay = Replay::new(&recorded);
        // Whatever else is looked for on the way.
        let breakpoints = if n % 2 == 0 { vec![] } else { vec![clock] };
        let orders = Orders::Reach { moment: moment.clone(), breakpoints };
        let reached = replay.run(orders).unwrap();
        assert_eq!(reached.stopped, Some(DebugStop::Reached), "{moment:x?}");
        assert_eq!((&reached.at, &replay.registers()), (moment, registers));
        assert_eq!(reached.last_hit.is_some(), n % 2 == 1);
        if n == 7 {
            replay.to_end(&recorded);
        }
    }
}
