//! The tables of snapshots in results.md.

use std::fmt::Write as _;

use vmm_lite_lab::stats::{Summary, human_ns};

use super::Snapshots;
use crate::report::three;

impl Snapshots {
    /// Writes them.
    pub fn write(&self, t: &mut String) -> std::fmt::Result {
        self.write_saves(t)?;
        self.write_restores(t)?;
        self.write_first_instruction(t)?;
        self.write_forks(t)
    }

    fn write_saves(&self, t: &mut String) -> std::fmt::Result {
        let count = self.saves.iter().flat_map(|s| &s.figures).map(|f| f.pause_ns.count).max();
        writeln!(
            t,
            "{} snapshots of each system in each scenario while the guest runs: `vmm-lite \
             snapshot`, and QEMU's `migrate` to `exec:cat > FILE` and `cont`; \
             median / p99 / max. The pause is vmm-lite's from the request to the first \
             instruction, QEMU's from its STOP to its RESUME event.\n",
            count.unwrap_or_default()
        )?;
        writeln!(
            t,
            "| saved | system | pause by own account | longest gap seen by guest or client | the \
             same watch with no snapshot | until the file is on the disk | file, KiB |"
        )?;
        writeln!(t, "| --- | --- | ---: | ---: | ---: | ---: | ---: |")?;
        for scenario in &self.saves {
            for f in &scenario.figures {
                writeln!(
                    t,
                    "| {} | {} | {} | {} | {} | {} | {} |",
                    scenario.name,
                    f.system,
                    three(f.pause_ns),
                    three(f.watch.seen()),
                    three(f.watch.noise_ns),
                    three(f.total_ns),
                    f.file_bytes.median / 1024,
                )?;
            }
        }
        let figures = || self.saves.iter().flat_map(|s| &s.figures);
        let wrong: u64 = figures().map(|f| f.watch.client_errors).sum();
        let again: u64 = figures().map(|f| f.watch.retransmissions).sum();
        writeln!(
            t,
            "\nClient errors and reconnects in all of it: {wrong}; TCP retransmissions: {again}.\n"
        )
    }

    fn write_restores(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "A store of 16 MiB with 6,000 keys, from its file, {} times each; median / p99 / \
             max.\n",
            self.restores.first().map_or(0, |f| f.runs_ns.count)
        )?;
        writeln!(t, "| restored | file, KiB | exec until the guest runs | exec to first reply |")?;
        writeln!(t, "| --- | ---: | ---: | ---: |")?;
        for f in &self.restores {
            let (runs, reply) = (three(f.runs_ns), three(f.first_reply_ns));
            writeln!(t, "| {} | {} | {runs} | {reply} |", f.name, f.file_bytes / 1024)?;
        }
        writeln!(t)
    }

    fn write_first_instruction(&self, t: &mut String) -> std::fmt::Result {
        writeln!(t, "dirtier with half of its memory in use; median / p99 / max.\n")?;
        writeln!(t, "| exec until the guest runs | memory | file, MiB | times | |")?;
        writeln!(t, "| --- | ---: | ---: | ---: | ---: |")?;
        for f in &self.first_instruction {
            let mib = f.file_bytes >> 20;
            let (n, runs) = (f.runs_ns.count, three(f.runs_ns));
            writeln!(t, "| {} | {} MiB | {mib} | {n} | {runs} |", f.name, f.memory_mib)?;
        }
        writeln!(t)
    }

    fn write_forks(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "Where there is a network each has a TAP device of its own. The parent's pause and the \
             private memory of a clone that does nothing are median / p99 / max.\n"
        )?;
        writeln!(
            t,
            "| many of one store | at a time | exec until all run, median / max | a second | the \
             parent is stopped | private memory of an idle one, KiB |"
        )?;
        writeln!(t, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for f in &self.forks {
            let pause = f.pause_ns.map(three).unwrap_or_default();
            let (median, max) = (human_ns(f.all_run_ns.median), human_ns(f.all_run_ns.max));
            let (n, rate) = (f.count, f.per_second);
            let kib =
                |m: Summary| format!("{} / {} / {}", m.median >> 10, m.p99 >> 10, m.max >> 10);
            let private = f.idle_private_bytes.map(kib).unwrap_or_default();
            let name = &f.name;
            writeln!(t, "| {name} | {n} | {median} / {max} | {rate:.0} | {pause} | {private} |")?;
        }
        writeln!(t)
    }
}
