//! What the bench is asked to do.

use std::path::PathBuf;

use vmm_lite_lab::images::workspace;

/// `bench --help`.
pub const HELP: &str = "\
Measures vmm-lite side by side with QEMU, with the same program run natively, and with redis-server.

Usage: bench [--moves N] [--starts N] [--requests N] [--only PART] [--out DIR]

  --moves N      moves of each system in each scenario         [default: 100]
  --starts N     cold starts of each system                    [default: 100]
  --requests N   requests of each redis-benchmark run          [default: 100000]
  --only PART    moves, cold-start or throughput (may repeat)  [default: all]
  --out DIR      where results.json, results.md and plots go   [default: out/bench]

Everything runs in network namespaces that end with this program. Needs /dev/kvm, /dev/net/tun, QEMU and redis.";

/// The options.
#[derive(Clone, Debug)]
pub struct Options {
    /// Moves of each system in each scenario.
    pub moves: u32,
    /// Cold starts of each system.
    pub starts: u32,
    /// Requests of each redis-benchmark run.
    pub requests: u32,
    /// Parts to run; empty: all.
    pub only: Vec<String>,
    /// Where the results go.
    pub out: PathBuf,
}

impl Options {
    /// From the command line; `None` when help is wanted.
    pub fn from_args() -> Result<Option<Self>, String> {
        let mut options = Self {
            moves: 100,
            starts: 100,
            requests: 100_000,
            only: Vec::new(),
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
                "--starts" => options.starts = number(value()?)?,
                "--requests" => options.requests = number(value()?)?,
                "--out" => options.out = value()?.into(),
                "--only" => {
                    let part = value()?;
                    if !["moves", "cold-start", "throughput"].contains(&part.as_str()) {
                        return Err(format!("no part is called {part:?}"));
                    }
                    options.only.push(part);
                }
                other => return Err(format!("unknown option {other:?}")),
            }
        }
        Ok(Some(options))
    }

    /// Whether `part` is to be run.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|p| p == part)
    }
}
