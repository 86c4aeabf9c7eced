//! Faults at random moments, many of each: the clients' view of all of them in a table.

use crate::{
    arbiter::Kind,
    bed::Bed,
    faults::{ALL, Fault, Seen},
};
use std::{
    collections::BTreeMap,
    env,
    time::{Duration, Instant},
};
use vmm_lite_lab::stats::{human_ns, summary};

/// How many runs of each fault.
pub const RUNS: &str = "PROTECTION_RUNS";
/// Repeats the moments of a run.
pub const SEED: &str = "PROTECTION_SEED";
/// How long a soak takes, in seconds.
const SOAK: &str = "VMM_LITE_SOAK_SECONDS";

/// Clients of each VM.
const CLIENTS: usize = 3;
/// Faults happen up to so long after the VM was protected.
const MOMENTS: Duration = Duration::from_millis(40);
/// A client that waited this long had lost a packet, and waited for a retransmission.
const RETRANSMISSION: Duration = Duration::from_millis(150);

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

pub fn seed() -> u64 {
    let seed = number(SEED).unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{SEED}={seed} repeats the moments");
    seed
}

/// What happened in all runs of a fault.
#[derive(Debug, Default)]
struct Row {
    runs: u64,
    failures: u64,
    gaps: Vec<u64>,
    silences: Vec<u64>,
}

/// The results of all runs.
#[derive(Debug, Default)]
pub struct Table(BTreeMap<Fault, Row>);

impl Table {
    fn add(&mut self, fault: Fault, seen: Result<Seen, String>) {
        let row = self.0.entry(fault).or_default();
        row.runs += 1;
        match seen {
            Ok(seen) => {
                let ns = |time: &Duration| time.as_nanos() as u64;
                row.gaps.extend(seen.gaps.iter().map(ns));
                row.silences.extend(seen.silence.iter().map(ns));
            }
            Err(why) => {
                eprintln!("run {} of {fault:?}: {why}", row.runs);
                row.failures += 1;
            }
        }
    }

    fn print(&self) {
        eprintln!(
            "The VM's silence: from the last frame of the old host to the first of the new one. A \
             client's\ngap: from the last answer before to the first one after; it has a \
             retransmission in it in the\nshare of runs that the last column has.\n"
        );
        let title = ["runs", "failed", "silent p50", "p99", "max", "gap p50", "p99", "max"];
        eprint!("{:38}", "fault");
        title.iter().for_each(|title| eprint!(" {title:>10}"));
        eprintln!(" {:>10}", "> 150 ms");
        for (fault, row) in &self.0 {
            eprint!("{:38} {:10} {:10}", format!("{fault:?}"), row.runs, row.failures);
            for all in [&row.silences, &row.gaps].map(|values| summary(values)) {
                for value in [all.median, all.p99, all.max] {
                    let text = if all.count == 0 { "-".into() } else { human_ns(value) };
                    eprint!(" {text:>10}");
                }
            }
            let waited = |gap: &&u64| Duration::from_nanos(**gap) > RETRANSMISSION;
            let waited = row.gaps.iter().filter(waited).count();
            let share = 100.0 * waited as f64 / row.gaps.len().max(1) as f64;
            eprintln!(" {share:8.1} %");
        }
    }

    fn failures(&self) -> u64 {
        self.0.values().map(|row| row.failures).sum()
    }
}

/// Runs all of them, in an order of their own, on one VM: its clients go through everything with
/// the same connections. After a failure there is a new VM.
fn run(
    test: &str,
    kind: Kind,
    faults: impl IntoIterator<Item = Fault>,
    random: &mut fastrand::Rng,
    table: &mut Table,
) {
    let mut bed = None;
    for fault in faults {
        let Some(mut now) = bed.take().or_else(|| Bed::new(test, kind, CLIENTS)) else { return };
        let moment = MOMENTS.mul_f64(random.f64());
        let seen = now.protected(None).and_then(|()| now.suffers(fault, moment));
        // After a failure the next fault hits a new VM.
        bed = seen.is_ok().then_some(now);
        table.add(fault, seen);
    }
}

/// The clients and the capture themselves: an ordinary move is heard as one change of voices, with
/// nothing lost.
#[test]
fn a_move_is_heard_as_one_vm_that_changes_its_host() {
    let Some(mut bed) = Bed::new("a move is heard", Kind::File, CLIENTS) else { return };
    for (from, to) in [(0, 1), (1, 0)] {
        bed.oracle.hears().unwrap();
        let there = bed.vmms[to].receive(7000, &["--plaintext", "--tap", "tap0"]).unwrap();
        let args = ["migrate", "kv", &bed.vmms[to].url(7000), "--plaintext", "--json"];
        bed.vmms[from].json(&args).unwrap();
        bed.oracle.hears().unwrap();
        bed.oracle.check().unwrap();
        bed.vms[from] = None;
        bed.vms[to] = Some(there);
        assert_eq!(bed.heard().unwrap().order, [from, to]);
    }
}

#[test]
fn a_protected_vm_lives_on_after_any_fault() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut table = Table::default();
    let mut faults = [ALL, ALL].concat();
    random.shuffle(&mut faults);
    run("faults of a protected VM", Kind::Etcd, faults, &mut random, &mut table);
    let mut faults = ALL.to_vec();
    random.shuffle(&mut faults);
    run("faults of a protected VM, by files", Kind::File, faults, &mut random, &mut table);
    table.print();
    assert_eq!(table.failures(), 0);
}

#[test]
#[ignore = "takes long: make kills"]
fn a_protected_vm_lives_on_after_hundreds_of_each_fault() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut table = Table::default();
    for _ in 0..number(RUNS).unwrap_or(500) {
        // A VM goes through one of each.
        let mut faults = ALL.to_vec();
        random.shuffle(&mut faults);
        let kind = if random.bool() { Kind::Etcd } else { Kind::File };
        run("hundreds of faults", kind, faults, &mut random, &mut table);
    }
    table.print();
    assert_eq!(table.failures(), 0);
}

/// One VM all the time, and its clients' connections with it.
#[test]
#[ignore = "takes long: make soak"]
fn soak_a_protected_vm_lives_through_all_that_happens() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut table = Table::default();
    let end = Instant::now() + Duration::from_secs(number(SOAK).unwrap_or(1800));
    let mut which = random.fork();
    let faults = std::iter::from_fn(|| {
        (Instant::now() < end).then(|| *which.choice(ALL.iter()).expect("some"))
    });
    run("a soak of a protected VM", Kind::Etcd, faults, &mut random, &mut table);
    table.print();
    assert_eq!(table.failures(), 0);
}
