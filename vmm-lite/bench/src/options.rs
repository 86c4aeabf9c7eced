//! The options of the bench.

use std::path::PathBuf;

use vmm_lite_lab::images::workspace;

use crate::{load::Load, system::Which};

/// `bench --help`.
pub const HELP: &str = "\
Measures vmm-lite side by side with QEMU, with the same program run natively, and with redis-server.

Usage: bench [--only PART] [--scenario NAME] [--system NAME] [--moves N] [--snapshots N] [--clones \
N]
             [--starts N] [--requests N] [--bulk N] [--kills N] [--swaps N] [--heartbeat MS]
             [--misses N] [--down-after MS] [--out DIR]

  --only PART      moves, sizes, snapshots, cold-start, throughput, journals, protection or bulk
                   (may repeat)                                             [default: all]
  --scenario NAME  kv-idle, kv-loaded, dirtier-64, dirtier-1024 or dirtier-4096, of moves and
                   snapshots (may repeat)  [default: all of moves, the first two and the fourth of \
                   snapshots]
  --system NAME    vmm-lite or qemu, of moves and snapshots (may repeat)    [default: both, in turn]
  --moves N        moves of each system in each scenario, and at each size  [default: 100]
  --snapshots N    snapshots of each system in each scenario, and restores of each kind  [default: \
  100]
  --clones N       clones made with one fork                                [default: 100]
  --starts N       cold starts of each system                               [default: 100]
  --requests N     requests of each run under load                          [default: 100000]
  --bulk N         moves of 1 GiB, each in TLS and in the clear             [default: 10]
  --kills N        protection: kills of a protected VM's process, and of its host; of the other
                   systems a quarter as many                                [default: 40]
  --swaps N        protection: planned swaps, idle and under load           [default: 100]
  --heartbeat MS, --misses N
                   protection: those of `vmm-lite protect`                  [default: 1, 5]
  --down-after MS  protection: Sentinel's down-after-milliseconds           [default: 100]
  --out DIR        where results.json, results.md and plots go              [default: out/bench]

Everything runs in network namespaces that end with this program. Needs /dev/kvm, /dev/net/tun, \
QEMU and redis.

Examples:
  bench --only snapshots
  bench --only sizes --moves 1000
  bench --only moves --moves 1000 --scenario kv-idle --scenario kv-loaded
  bench --only moves --moves 1000 --scenario dirtier-4096 --system vmm-lite";

const PARTS: [&str; 8] =
    ["moves", "sizes", "snapshots", "cold-start", "throughput", "journals", "protection", "bulk"];

/// The options.
#[derive(Clone, Debug)]
pub struct Options {
    /// Moves of each system in each scenario, and at each size of memory.
    pub moves: u32,
    /// Snapshots of each system in each scenario, and restores of each kind.
    pub snapshots: u32,
    /// Clones made with one fork.
    pub clones: u32,
    /// Cold starts of each system.
    pub starts: u32,
    /// Requests of each run under load.
    pub requests: u32,
    /// Moves of 1 GiB on each transport.
    pub bulk: u32,
    /// Kills of each kind of a protected VM.
    pub kills: u32,
    /// Planned swaps of a protected VM with each load.
    pub swaps: u32,
    /// `vmm-lite protect --heartbeat`, ms.
    pub heartbeat_ms: u32,
    /// `vmm-lite protect --misses`.
    pub misses: u32,
    /// Sentinel's down-after-milliseconds.
    pub down_after: u32,
    /// Parts to run; empty: all.
    pub only: Vec<String>,
    /// Scenarios of moves and snapshots to run; empty: each part's own.
    pub scenarios: Vec<Load>,
    /// Systems that move and save.
    pub systems: Vec<Which>,
    /// Directory of the results.
    pub out: PathBuf,
}

impl Options {
    /// Parses the command line; `None` if help is requested.
    pub fn from_args() -> Result<Option<Self>, String> {
        let mut options = Self {
            moves: 100,
            snapshots: 100,
            clones: 100,
            starts: 100,
            requests: 100_000,
            bulk: 10,
            kills: 40,
            swaps: 100,
            heartbeat_ms: 1,
            misses: 5,
            down_after: 100,
            only: Vec::new(),
            scenarios: Vec::new(),
            systems: Vec::new(),
            out: workspace().join("out/bench"),
        };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} takes a value"));
            let number = |text: String| {
                text.parse()
                    .ok()
                    .filter(|n| *n > 0)
                    .ok_or(format!("{text:?} is not a number from 1"))
            };
            match arg.as_str() {
                "-h" | "--help" => return Ok(None),
                "--moves" => options.moves = number(value()?)?,
                "--snapshots" => options.snapshots = number(value()?)?,
                "--clones" => {
                    // Each has an address in the guests' network.
                    let clones = number(value()?)?;
                    if clones > 100 {
                        return Err(format!("{clones} clones are more than there are addresses"));
                    }
                    options.clones = clones;
                }
                "--starts" => options.starts = number(value()?)?,
                "--requests" => options.requests = number(value()?)?,
                "--bulk" => options.bulk = number(value()?)?,
                "--kills" => options.kills = number(value()?)?,
                "--swaps" => options.swaps = number(value()?)?,
                "--heartbeat" => options.heartbeat_ms = number(value()?)?,
                "--misses" => options.misses = number(value()?)?,
                "--down-after" => options.down_after = number(value()?)?,
                "--out" => options.out = value()?.into(),
                "--only" => {
                    let part = value()?;
                    if !PARTS.contains(&part.as_str()) {
                        return Err(format!("no part is called {part:?}"));
                    }
                    options.only.push(part);
                }
                "--scenario" => {
                    let name = value()?;
                    let load = Load::ALL.into_iter().find(|load| load.key() == name);
                    options
                        .scenarios
                        .push(load.ok_or_else(|| format!("no scenario is called {name:?}"))?);
                }
                "--system" => {
                    let name = value()?;
                    let which = Which::ALL.into_iter().find(|which| which.key() == name);
                    options
                        .systems
                        .push(which.ok_or_else(|| format!("no system is called {name:?}"))?);
                }
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        Ok(Some(options))
    }

    /// Whether `part` has to run.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|p| p == part)
    }

    /// The scenarios to run for a part whose own are `of`.
    pub fn scenarios(&self, of: &[Load]) -> Vec<Load> {
        if self.scenarios.is_empty() { of.to_vec() } else { self.scenarios.clone() }
    }

    /// The systems that take part.
    pub fn systems(&self) -> Vec<Which> {
        if self.systems.is_empty() { Which::ALL.to_vec() } else { self.systems.clone() }
    }
}
