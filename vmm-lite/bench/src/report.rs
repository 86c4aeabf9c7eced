//! results.json, results.md and the plots.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    process::run,
    stats::{Summary, human_ns},
};

use crate::{
    bulk::Bulk, cold_start::ColdStart, journals::Kept, moves::Scenario, options::Options, plots,
    protection::Protection, sizes::Size, snapshots::Snapshots, throughput::Throughput,
};

/// All measurements of one run, and the host.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// Seconds since 1970.
    pub unix_time: u64,
    /// The day, as `date` writes it.
    pub date: String,
    /// CPU, cores, kernel.
    pub host: String,
    /// QEMU's version.
    pub qemu: String,
    /// Moves of each system in each scenario.
    pub moves_each: u32,
    /// See [`crate::cold_start`].
    pub cold_start: Vec<ColdStart>,
    /// See [`crate::moves`].
    pub moves: Vec<Scenario>,
    /// See [`crate::snapshots`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<Snapshots>,
    /// See [`crate::throughput`].
    pub throughput: Vec<Throughput>,
    /// See [`crate::journals`].
    pub journals: Vec<Kept>,
    /// See [`crate::protection`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// See [`crate::sizes`].
    pub sizes: Vec<Size>,
    /// See [`crate::bulk`].
    pub bulk: Vec<Bulk>,
}

impl Results {
    /// Empty results, with the host's description.
    pub fn new(options: &Options) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Ok(Self {
            unix_time: now,
            date: run(Command::new("date").arg("+%F"))?.trim().to_owned(),
            host: host()?,
            qemu: qemu_harness::host::qemu_version().unwrap_or_else(|e| e.to_string()),
            moves_each: options.moves,
            cold_start: Vec::new(),
            moves: Vec::new(),
            snapshots: None,
            throughput: Vec::new(),
            journals: Vec::new(),
            protection: None,
            sizes: Vec::new(),
            bulk: Vec::new(),
        })
    }

    /// Writes everything into `out` and the table to the terminal.
    pub fn save(&self, out: &Path) -> Result<()> {
        let io = |what: &str| {
            let what = format!("{what} in {}", out.display());
            move |source| Error::Io { what, source }
        };
        fs::create_dir_all(out).map_err(io("make the folder"))?;
        let json = serde_json::to_string_pretty(self)
            .map_err(|e| Error::Protocol { what: "write JSON".into(), said: e.to_string() })?;
        fs::write(out.join("results.json"), json + "\n").map_err(io("write results.json"))?;
        let markdown = self.markdown();
        fs::write(out.join("results.md"), &markdown).map_err(io("write results.md"))?;
        plots::draw(self, out)?;
        println!("{markdown}\nresults.json, results.md and plots are in {}", out.display());
        Ok(())
    }

    fn markdown(&self) -> String {
        let mut text = String::new();
        self.write_markdown(&mut text).expect("a string takes everything");
        text
    }

    fn write_markdown(&self, t: &mut String) -> std::fmt::Result {
        writeln!(t, "Measured {} on {}, {}.\n", self.date, self.host, self.qemu)?;
        if !self.moves.is_empty() {
            self.write_moves(t)?;
        }
        crate::sizes::write_markdown(&self.sizes, t)?;
        if let Some(snapshots) = &self.snapshots {
            snapshots.write(t)?;
        }
        if !self.cold_start.is_empty() {
            writeln!(
                t,
                "| cold start of hello, exec to first line | median | p99 | max |\n| --- | ---: | \
                 ---: | ---: |"
            )?;
            for c in &self.cold_start {
                let s = c.first_line_ns;
                writeln!(
                    t,
                    "| {} | {} | {} | {} |",
                    c.system,
                    human_ns(s.median),
                    human_ns(s.p99),
                    human_ns(s.max)
                )?;
            }
            writeln!(t)?;
        }
        if !self.throughput.is_empty() {
            writeln!(
                t,
                "| redis-benchmark -c 50 | -P | test | requests/s | median ms | p99 ms | max ms |"
            )?;
            writeln!(t, "| --- | ---: | --- | ---: | ---: | ---: | ---: |")?;
            for r in &self.throughput {
                for row in &r.rows {
                    writeln!(
                        t,
                        "| {} | {} | {} | {:.0} | {:.3} | {:.3} | {:.3} |",
                        r.server, r.pipeline, row.test, row.rps, row.p50_ms, row.p99_ms, row.max_ms
                    )?;
                }
            }
            writeln!(t)?;
        }
        self.write_journals(t)?;
        if let Some(protection) = &self.protection {
            protection.write(t)?;
        }
        crate::bulk::write_markdown(&self.bulk, t)
    }

    fn write_journals(&self, t: &mut String) -> std::fmt::Result {
        if self.journals.is_empty() {
            return Ok(());
        }
        writeln!(
            t,
            "| keeps what it is told | SET/s, 50 clients | median / p99 ms | SET/s, one client | \
             median / p99 ms | server's CPU, µs a request |"
        )?;
        writeln!(t, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
        for kept in &self.journals {
            let (many, one) = (&kept.many, &kept.one);
            writeln!(
                t,
                "| {} | {:.0} | {:.3} / {:.3} | {:.0} | {:.3} / {:.3} | {:.1} |",
                kept.system,
                many.rps,
                many.p50_ms,
                many.p99_ms,
                one.rps,
                one.p50_ms,
                one.p99_ms,
                kept.cpu_us
            )?;
        }
        writeln!(t)
    }

    fn write_moves(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "{} moves of each system in each scenario; median / p99 / max.\n",
            self.moves_each
        )?;
        writeln!(
            t,
            "| scenario | system | blackout by own account | longest gap seen by guest or client | \
             the same watch with no move | a move adds, at the median and at p99 | a client's \
             requests at p99, during moves and with none | TCP segments sent again | whole move | \
             KiB sent |"
        )?;
        writeln!(t, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for scenario in &self.moves {
            for f in &scenario.figures {
                let (seen, noise) = (f.watch.seen(), f.watch.noise_ns);
                let added = |with: u64, without: u64| match with.checked_sub(without) {
                    Some(more) => human_ns(more),
                    None => format!("-{}", human_ns(without - with)),
                };
                let requests = match (f.watch.requests_ns, f.watch.quiet_requests_ns) {
                    (Some(during), Some(quiet)) => {
                        format!("{}, {}", human_ns(during.p99), human_ns(quiet.p99))
                    }
                    _ => String::new(),
                };
                writeln!(
                    t,
                    "| {} | {} | {} | {} | {} | {}, {} | {requests} | {} | {} | {} |",
                    scenario.name,
                    f.system,
                    three(f.blackout_ns),
                    three(seen),
                    three(noise),
                    added(seen.median, noise.median),
                    added(seen.p99, noise.p99),
                    f.watch.retransmissions,
                    human_ns(f.total_ns.median),
                    f.bytes_sent.median / 1024,
                )?;
            }
        }
        let figures = self.moves.iter().flat_map(|s| &s.figures);
        let wrong: u64 = figures.map(|f| f.watch.client_errors).sum();
        writeln!(t, "\nClient errors and reconnects in all of it: {wrong}.\n")
    }
}

/// Median, p99 and maximum.
pub fn three(s: Summary) -> String {
    format!("{} / {} / {}", human_ns(s.median), human_ns(s.p99), human_ns(s.max))
}

fn host() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")
        .map_err(|source| Error::Io { what: "read /proc/cpuinfo".into(), source })?;
    let model = cpu
        .lines()
        .find_map(|l| {
            l.strip_prefix("model name")?.split_once(':').map(|(_, m)| m.trim().to_owned())
        })
        .unwrap_or_else(|| "unknown CPU".into());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = run(Command::new("uname").arg("-r"))?;
    Ok(format!("{model}, {cores} cores, Linux {}", kernel.trim()))
}
