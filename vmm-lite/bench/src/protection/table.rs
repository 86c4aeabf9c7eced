//! The tables of results.md.

use std::fmt::Write;

use vmm_lite_lab::stats::{human_ns, summary};

use super::{
    Protection,
    load::{Cost, Loaded, MANY},
    recovery::Fault,
    system::System,
    writers::{CLIENTS, LIMIT},
};
use crate::report::three;

/// Limits of the targets, median and p99 where there are two.
const PROCESS_NS: (u64, u64) = (1_000_000, 5_000_000);
/// Added to the time after which a silent host counts as dead.
const HOST_NS: u64 = 1_000_000;
const SWAP_NS: (u64, u64) = (100_000, 300_000);
const ADDED_NS: u64 = 200_000;
const THROUGHPUT: f64 = 0.7;
const CPU: f64 = 1.15;

/// The medians of a system's rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Medians {
    rps: f64,
    p50_ns: u64,
    p99_ns: u64,
    cpu_us: [f64; 2],
    machine_us: f64,
    log_bytes: Option<f64>,
}

impl Medians {
    fn of(rounds: &[&Loaded], cost: fn(&Loaded) -> &Cost) -> Self {
        let each = |figure: &dyn Fn(&Cost) -> f64| {
            let mut all: Vec<f64> = rounds.iter().map(|round| figure(cost(round))).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or_default()
        };
        let logs = rounds.iter().any(|round| cost(round).log_bytes.is_some());
        Self {
            rps: each(&|c| c.seen.rps),
            p50_ns: each(&|c| c.seen.latency_ns.median as f64) as u64,
            p99_ns: each(&|c| c.seen.latency_ns.p99 as f64) as u64,
            cpu_us: [0, 1].map(|host| each(&|c| c.cpu_us[host])),
            machine_us: each(&|c| c.machine_us),
            log_bytes: logs.then(|| each(&|c| c.log_bytes.unwrap_or_default())),
        }
    }
}

impl Protection {
    fn rounds(&self, system: System) -> Vec<&Loaded> {
        self.load.iter().filter(|loaded| loaded.system == system.name()).collect()
    }

    /// Time after which a silent host counts as dead.
    fn budget_ns(&self) -> u64 {
        u64::from(self.heartbeat_ms) * u64::from(self.misses) * 1_000_000
    }

    /// Writes them.
    pub fn write(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "Protection: {} CPUs for hosts, clients and network. vmm-lite: heartbeat {} ms × {}, \
             TLS, arbiter in a directory. Sentinel: down-after-milliseconds {}.\n",
            self.cpus, self.heartbeat_ms, self.misses, self.down_after_ms
        )?;
        for (system, why) in &self.skipped {
            writeln!(t, "SKIPPED: {system}: {}\n", why.replace('\n', " "))?;
        }
        self.write_load(t)?;
        self.write_recovery(t)?;
        self.write_swaps(t)?;
        let alarms = self.load.iter().map(|round| round.false_alarms);
        let alarms = alarms.chain(self.swaps.iter().map(|swaps| swaps.false_alarms));
        let kills = self.recovery.iter().filter(|r| r.system == System::Protected.name());
        let alarms = alarms.chain(kills.map(|r| r.false_alarms));
        writeln!(
            t,
            "In all of it vmm-lite took silence for death, with nothing dead, {} times: it was \
             protected again, and what was being measured was repeated.\n",
            alarms.sum::<u32>()
        )?;
        self.write_targets(t)
    }

    fn write_load(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "| SET, the median of {} rounds | SET/s, {MANY} clients | median / p99 | SET/s, one \
             client | median / p99 | CPU a SET with {MANY} clients, µs: host a / host b / whole \
             machine | the same with one client | log, bytes a SET: {MANY} clients / one |",
            self.rounds(System::Kv).len()
        )?;
        writeln!(t, "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for system in System::ALL {
            let rounds = self.rounds(system);
            if rounds.is_empty() {
                continue;
            }
            let [many, one] = [
                Medians::of(&rounds, |loaded| &loaded.many),
                Medians::of(&rounds, |loaded| &loaded.one),
            ];
            let latency = |m: Medians| format!("{} / {}", human_ns(m.p50_ns), human_ns(m.p99_ns));
            let cpu = |m: Medians| {
                format!("{:.1} / {:.1} / {:.1}", m.cpu_us[0], m.cpu_us[1], m.machine_us)
            };
            let log = many.log_bytes.zip(one.log_bytes);
            let log = log.map(|(many, one)| format!("{many:.0} / {one:.0}")).unwrap_or_default();
            writeln!(
                t,
                "| {} | {:.0} | {} | {:.0} | {} | {} | {} | {log} |",
                system.name(),
                many.rps,
                latency(many),
                one.rps,
                latency(one),
                cpu(many),
                cpu(one),
            )?;
        }
        let protected = self.rounds(System::Protected);
        let trips: Vec<u64> = protected.iter().flat_map(|r| r.round_trips_ns.clone()).collect();
        let trips = summary(&trips);
        writeln!(
            t,
            "\nWith one client, from sending records to the standby's ack: {} (median of {} looks, \
             {} to {}).\n",
            human_ns(trips.median),
            trips.count,
            human_ns(trips.min),
            human_ns(trips.max),
        )
    }

    fn write_recovery(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "| the primary dies | what | kills | no client is answered: median / p99 / max | the \
             same for a client that does not wait for answers | each of {CLIENTS} clients waits: \
             median / p99 / max | kills in which one waited over 150 ms | acknowledged writes | \
             lost | clients had to connect again | taken for dead before it was |"
        )?;
        writeln!(t, "| --- | --- | {} |", ["---:"; 9].join(" | "))?;
        for r in &self.recovery {
            writeln!(
                t,
                "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} times | {} times |",
                r.system,
                r.fault.name(),
                r.any_ns.count,
                three(r.any_ns),
                r.steady_ns.map(three).unwrap_or_default(),
                three(r.each_ns),
                r.retransmissions,
                r.acknowledged,
                r.lost,
                r.reconnects,
                r.false_alarms,
            )?;
        }
        writeln!(
            t,
            "\nClients of Sentinel wait {} ms for an answer before they ask for the new master, \
             and ask again every 5 ms. After `WAIT`'s only replica has become the master they \
             write without `WAIT`.\n",
            LIMIT.as_millis()
        )
    }

    fn write_swaps(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "| planned swap | swaps | blackout by own account: median / p99 / max | longest gap \
             seen by a client | the same watch with no swap | TCP segments sent again |"
        )?;
        writeln!(t, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for s in &self.swaps {
            writeln!(
                t,
                "| {} | {} | {} | {} | {} | {} |",
                s.load,
                s.blackout_ns.count,
                three(s.blackout_ns),
                three(s.watch.seen()),
                three(s.watch.noise_ns),
                s.watch.retransmissions,
            )?;
        }
        writeln!(t)
    }

    fn write_recovery_targets(&self, t: &mut String) -> std::fmt::Result {
        for r in self.recovery.iter().filter(|r| r.system == System::Protected.name()) {
            let (p50, p99) = match r.fault {
                Fault::Process => PROCESS_NS,
                Fault::Host => (self.budget_ns() + HOST_NS, self.budget_ns() + HOST_NS),
            };
            let seen = r.steady_ns.unwrap_or_default();
            row(
                t,
                &format!(
                    "recovery after the death of the {}: p50 at most {}, p99 {}",
                    r.fault.name(),
                    human_ns(p50),
                    human_ns(p99)
                ),
                &format!(
                    "a client that does not wait: {}; each that waits: {}",
                    three(seen),
                    three(r.each_ns)
                ),
                [seen, r.each_ns].iter().all(|all| all.median <= p50 && all.p99 <= p99),
            )?;
        }
        for s in &self.swaps {
            let (p50, p99) = SWAP_NS;
            row(
                t,
                &format!(
                    "planned swap, {}: blackout p50 at most {}, p99 {}",
                    s.load,
                    human_ns(p50),
                    human_ns(p99)
                ),
                &format!("{} / {}", human_ns(s.blackout_ns.median), human_ns(s.blackout_ns.p99)),
                s.blackout_ns.median <= p50 && s.blackout_ns.p99 <= p99,
            )?;
        }
        Ok(())
    }

    /// Each target and what was measured, which may miss it.
    fn write_targets(&self, t: &mut String) -> std::fmt::Result {
        let of = |system, cost| Medians::of(&self.rounds(system), cost);
        let many = |system| of(system, |loaded| &loaded.many);
        let one = |system| of(system, |loaded| &loaded.one);
        let (before, after) = (many(System::Kv), many(System::Protected));
        let added = one(System::Protected).p50_ns.saturating_sub(one(System::Kv).p50_ns);
        let share = after.rps / before.rps;
        let cpu = after.cpu_us[0] / before.cpu_us[0];
        let journal = many(System::Journaled).rps / many(System::RedisAppend).rps;
        let one_journal = one(System::Journaled).rps / one(System::RedisAppend).rps;
        writeln!(t, "| target | measured | |\n| --- | ---: | --- |")?;
        self.write_recovery_targets(t)?;
        row(
            t,
            &format!("latency added at one client, median: at most {}", human_ns(ADDED_NS)),
            &human_ns(added),
            added <= ADDED_NS,
        )?;
        row(
            t,
            &format!(
                "throughput at {MANY} clients: at least {:.0} % of unprotected, where CPUs allow",
                100.0 * THROUGHPUT
            ),
            &format!("{:.0} %", 100.0 * share),
            share >= THROUGHPUT,
        )?;
        row(
            t,
            &format!("CPU of the primary for a SET at {MANY} clients: at most {CPU} times"),
            &format!("{cpu:.2} times"),
            cpu <= CPU,
        )?;
        row(
            t,
            "journal, `--sync always`: at least redis-server's `appendfsync always`",
            &format!(
                "{:.0} % at {MANY} clients, {:.0} % at one",
                100.0 * journal,
                100.0 * one_journal
            ),
            journal >= 1.0 && one_journal >= 1.0,
        )?;
        writeln!(t)
    }
}

fn row(t: &mut String, target: &str, measured: &str, met: bool) -> std::fmt::Result {
    writeln!(t, "| {target} | {measured} | {} |", if met { "met" } else { "missed" })
}
