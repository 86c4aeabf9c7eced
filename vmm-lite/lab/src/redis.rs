//! redis-benchmark and redis-cli, as a user runs them.

use std::{net::SocketAddr, process::Command};

use serde::Serialize;

use crate::{
    error::{Error, Result},
    images::installed,
    net::Namespace,
    process::{Process, run},
};

/// One line of redis-benchmark's CSV.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchmarkRow {
    /// The name of the test.
    pub test: String,
    /// Requests per second.
    pub rps: f64,
    /// Average latency, ms.
    pub avg_ms: f64,
    /// Median latency, ms.
    pub p50_ms: f64,
    /// 99th percentile, ms.
    pub p99_ms: f64,
    /// Maximum, ms.
    pub max_ms: f64,
}

fn benchmark_command(ns: &Namespace, server: SocketAddr, args: &[&str]) -> Result<Command> {
    installed("redis-benchmark", "redis-tools")?;
    let mut command = ns.command("redis-benchmark");
    command.args(["-h", &server.ip().to_string(), "-p", &server.port().to_string()]).args(args);
    Ok(command)
}

/// Runs redis-benchmark with `--csv` and `args` to its end.
///
/// # Errors
/// If it fails, or prints something other than its CSV.
pub fn benchmark(ns: &Namespace, server: SocketAddr, args: &[&str]) -> Result<Vec<BenchmarkRow>> {
    parse_csv(&run(benchmark_command(ns, server, args)?.arg("--csv"))?)
}

/// Starts redis-benchmark as background load that continues until dropped (`-l`), quietly.
///
/// # Errors
/// If it cannot be started.
pub fn background_load(ns: &Namespace, server: SocketAddr, args: &[&str]) -> Result<Process> {
    let mut command = benchmark_command(ns, server, args)?;
    command.args(["-l", "-q"]);
    Process::start(command)
}

/// Runs one redis-cli command and returns its output, trimmed.
///
/// # Errors
/// If redis-cli is missing or fails.
pub fn cli(ns: &Namespace, server: SocketAddr, args: &[&str]) -> Result<String> {
    installed("redis-cli", "redis-tools")?;
    let mut command = ns.command("redis-cli");
    command.args(["-h", &server.ip().to_string(), "-p", &server.port().to_string()]).args(args);
    Ok(run(&mut command)?.trim().to_owned())
}

/// Reads redis-benchmark 7's CSV: test, rps, avg, min, p50, p95, p99, max.
fn parse_csv(text: &str) -> Result<Vec<BenchmarkRow>> {
    let bad =
        |line: &str| Error::Protocol { what: "redis-benchmark's CSV".into(), said: line.into() };
    let mut rows = Vec::new();
    for line in text.lines().filter(|l| l.starts_with('"') && !l.starts_with("\"test\"")) {
        // Test names may contain commas ("LRANGE_100 (first 100 elements)" does not, "MSET (10
        // keys)" does not, but a user's can).
        let fields: Vec<&str> = line.trim_matches('"').split("\",\"").collect();
        let [test, numbers @ ..] = fields.as_slice() else { return Err(bad(line)) };
        let numbers: Vec<f64> = numbers
            .iter()
            .map(|n| n.parse())
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| bad(line))?;
        let [rps, avg_ms, _, p50_ms, _, p99_ms, max_ms] = numbers[..] else {
            return Err(bad(line));
        };
        rows.push(BenchmarkRow { test: (*test).to_owned(), rps, avg_ms, p50_ms, p99_ms, max_ms });
    }
    if rows.is_empty() { Err(bad(text)) } else { Ok(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_of_redis_benchmark_7() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\
                    \"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                    \"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"SET\",\"92592.59\",\"0.300\",\"0.072\",\"0.287\",\"0.431\",\
                    \"0.503\",\"1.415\"\n";
        let rows = parse_csv(text).unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0].test, "SET");
        assert!((rows[0].rps - 92592.59).abs() < 1e-6);
        assert!((rows[0].max_ms - 1.415).abs() < 1e-9);
        assert!(parse_csv("Could not connect").is_err());
    }
}
