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
    cold_start::ColdStart, moves::Scenario, options::Options, plots, throughput::Throughput,
};

/// Everything one run measured, and where.
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
    /// See [`crate::throughput`].
    pub throughput: Vec<Throughput>,
}

impl Results {
    /// Empty, with the host looked at.
    pub fn new(options: &Options) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        Ok(Self {
            unix_time: now,
            date: run(Command::new("date").arg("+%F"))?.trim().to_owned(),
            host: host()?,
            qemu: qemu_tests::host::qemu_version().unwrap_or_else(|e| e.to_string()),
            moves_each: options.moves,
            cold_start: Vec::new(),
            moves: Vec::new(),
            throughput: Vec::new(),
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
        if !self.cold_start.is_empty() {
            writeln!(
                t,
                "| cold start of hello, exec to first line | median | p99 | max |\n| --- | ---: | ---: | ---: |"
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
        }
        Ok(())
    }

    fn write_moves(&self, t: &mut String) -> std::fmt::Result {
        writeln!(
            t,
            "{} moves of each system in each scenario; median / p99 / max.\n",
            self.moves_each
        )?;
        writeln!(
            t,
            "| scenario | system | blackout seen by guest or client | noise with no move | blackout by own account | whole move | KiB sent | ratio at the median |"
        )?;
        writeln!(t, "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")?;
        for scenario in &self.moves {
            let seen =
                |f: &crate::moves::Figures| f.guest_gap_ns.or(f.client_gap_ns).unwrap_or_default();
            let ours = scenario.figures.first().map(|f| seen(f).median);
            for f in &scenario.figures {
                let ratio = match ours {
                    Some(ours) if ours > 0 => format!("{:.1}", seen(f).median as f64 / ours as f64),
                    _ => String::new(),
                };
                writeln!(
                    t,
                    "| {} | {} | {} | {} | {} | {} | {} | {ratio} |",
                    scenario.name,
                    f.system,
                    three(seen(f)),
                    three(f.noise_ns),
                    three(f.blackout_ns),
                    human_ns(f.total_ns.median),
                    f.bytes_sent.median / 1024,
                )?;
            }
        }
        let wrong: u64 = self.moves.iter().flat_map(|s| &s.figures).map(|f| f.client_errors).sum();
        writeln!(t, "\nClient errors and reconnects in all of it: {wrong}.\n")
    }
}

fn three(s: Summary) -> String {
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
