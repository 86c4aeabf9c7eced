//! A process dies, or is frozen for a while, at each named place of protection.

use crate::{arbiter::Kind, bed::Bed};
use Side::{Primary, Standby};
use When::{Protected, Seeding, Swapping, TakingOver};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use vmm::fail_point::POINTS;
use vmm_lite_lab::vmm::TIMEOUT;

const CLIENTS: usize = 2;
/// Runs only the places whose name contains this.
const ONLY: &str = "PROTECTION_POINT";
/// Longer than a primary that is frozen is waited for.
const FROZEN: Duration = Duration::from_millis(400);

/// Which process gets there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Primary,
    Standby,
}

/// When it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum When {
    /// Before the standby is in sync: the VM is not protected.
    Seeding,
    /// All the time from then on.
    Protected,
    /// In a planned swap.
    Swapping,
    /// After the primary has died.
    TakingOver,
}

/// A place.
#[derive(Clone, Copy, Debug)]
struct Row {
    point: &'static str,
    side: Side,
    when: When,
}

const fn row(side: Side, when: When, point: &'static str) -> Row {
    Row { point, side, when }
}

/// All places whose name begins with `protection.`.
const ROWS: &[Row] = &[
    row(Primary, Seeding, "protection.recorded"),
    row(Primary, Seeding, "protection.seeding"),
    row(Primary, Seeding, "protection.copied"),
    row(Standby, Seeding, "protection.welcomed"),
    row(Standby, Seeding, "protection.following"),
    row(Primary, Protected, "protection.appended"),
    row(Primary, Protected, "protection.sent"),
    row(Primary, Protected, "protection.releasing"),
    row(Standby, Protected, "protection.received"),
    row(Standby, Protected, "protection.executed"),
    row(Primary, Swapping, "protection.stopped"),
    row(Primary, Swapping, "protection.handed-over"),
    row(Standby, Swapping, "protection.taking-over"),
    row(Standby, Swapping, "protection.took-over"),
    row(Standby, TakingOver, "protection.asking"),
    row(Standby, TakingOver, "protection.taking-over"),
    row(Standby, TakingOver, "protection.took-over"),
];

/// What happens there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    Kill,
    /// It is stopped, for longer than the other one waits.
    Freeze,
}

#[test]
fn every_place_is_in_the_table() {
    let rows: BTreeSet<_> = ROWS.iter().map(|row| row.point).collect();
    let named = |name: &&str| name.starts_with("protection.");
    let points: BTreeSet<_> = POINTS.iter().map(|point| point.name).filter(named).collect();
    assert_eq!(rows, points);
}

#[test]
fn a_protected_vm_lives_on_whatever_fails_at_a_named_place() {
    let mut wrong = Vec::new();
    let only = std::env::var(ONLY).unwrap_or_default();
    for row in ROWS.iter().filter(|row| row.point.contains(&only)) {
        for action in [Action::Kill, Action::Freeze] {
            for kind in [Kind::File, Kind::Etcd] {
                // Both are gone, or the only one is: there is nothing that could go on.
                let lost = matches!((row.side, row.when), (Primary, Seeding) | (_, TakingOver));
                if lost && action == Action::Kill {
                    continue;
                }
                // The arbiter matters less than the place: they take turns.
                if (kind == Kind::Etcd) != (action == Action::Freeze) {
                    continue;
                }
                match case(*row, action, kind) {
                    Some(Ok(())) => {}
                    Some(Err(why)) => wrong.push(format!("{row:?} {action:?} {kind:?}: {why}")),
                    None => return,
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} failed:\n{}", wrong.len(), wrong.join("\n"));
}

/// `None` after a skip.
fn case(row: Row, action: Action, kind: Kind) -> Option<Result<(), String>> {
    // A primary gets there while it seeds the standby too, where its death ends the VM.
    let nth = match (row.when, row.side) {
        (Protected, Primary) => 3000,
        (Protected, Standby) => 50,
        _ => 1,
    };
    let what = if action == Action::Kill { "kill" } else { "stop" };
    let choice = format!("{}={what}@{nth}", row.point);
    let of_primary = (row.side == Primary).then_some(choice.as_str());
    let mut bed = Bed::with("fail points of protection", kind, CLIENTS, of_primary)?;
    let began = Instant::now();
    let result = bed.fails(row, action, &choice);
    let how = result.as_ref().err().map_or("fine", |why| why);
    eprintln!("{:?}: {} {:?}, {action:?}: {how}", began.elapsed(), row.point, row.when);
    Some(result)
}

impl Bed {
    fn fails(&mut self, row: Row, action: Action, choice: &str) -> Result<(), String> {
        let failing = if row.side == Primary { 0 } else { 1 };
        // Frozen with the standby's ack in hand, a primary releases what that is for when it goes
        // on: bytes that the new one has sent too (migrate/REPLICATION.md, "What remains").
        self.voices.repeats = row.point == "protection.releasing" && action == Action::Freeze;
        self.voices.returns = (row.when, row.point) == (Swapping, "protection.took-over");
        self.stand_by((row.side == Standby).then_some(choice));
        // A verb that waits for a frozen process ends with this process.
        let mut verb = match row.when {
            Seeding => Some(self.begin_protect()),
            Protected => {
                self.protect().map(drop).or_else(|e| self.reached(failing, row).map_err(|_| e))?;
                None
            }
            Swapping => {
                self.protect()?;
                Some(self.begin_verb("failover"))
            }
            TakingOver => {
                self.protect()?;
                self.signal(0, Signal::SIGKILL);
                None
            }
        };
        self.reached(failing, row)?;
        match action {
            Action::Kill => drop(self.vms[failing].as_mut().unwrap().wait(TIMEOUT)),
            Action::Freeze => {
                std::thread::sleep(FROZEN);
                // It goes on; whoever was given up meanwhile steps down.
                self.signal(failing, Signal::SIGCONT);
            }
        }
        self.oracle.hears().map_err(|e| format!("{e}\n{}", self.said()))?;
        if let (Some(verb), Seeding, Action::Freeze) = (&mut verb, row.when, action) {
            // It may succeed yet.
            verb.wait(TIMEOUT).map_err(|e| e.to_string())?;
        }
        drop(verb);
        self.active = self.only_runner()?;
        self.oracle.check()?;
        self.heard().map_err(|e| format!("{e}\n{}", self.said()))?;
        // The survivor can be protected.
        if self.replication(self.active)["standbys"][0]["in_sync"] != true {
            self.unprotected()?;
            self.protected(None)?;
        }
        self.oracle.hears()
    }

    fn reached(&self, host: usize, row: Row) -> Result<(), String> {
        let line = format!("fail point {}: ", row.point);
        let reached = self.vms[host].as_ref().unwrap().wait_for_line(&line, TIMEOUT);
        reached.map(drop).map_err(|_| format!("it does not get there\n{}", self.said()))
    }
}
