//! The server's counters, in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Media type of [`Metrics::render`].
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Counters since the start. A request is counted when its answer begins.
pub struct Metrics {
    started: Instant,
    started_at: Duration,
    instance: u64,
    accepted: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
    failed: AtomicU64,
    answers: Mutex<BTreeMap<u16, u64>>,
}

impl Metrics {
    /// All zero; the uptime begins now.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            // A clock before 1970 is not set, which zero expresses as well.
            started_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            instance: RandomState::new().hash_one(()),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            answers: Mutex::default(),
        }
    }

    /// A connection was accepted.
    pub fn connected(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// A connection was closed without service, because there were too many.
    pub fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// An accepted connection has ended, `well` or not.
    pub fn disconnected(&self, well: bool) {
        self.closed.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(!well), Relaxed);
    }

    /// A request was answered with this status code.
    pub fn answered(&self, code: u16) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
    }

    /// A number drawn at the start: the same number means the same run.
    pub fn instance(&self) -> u64 {
        self.instance
    }

    /// Time since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Requests answered so far.
    pub fn requests(&self) -> u64 {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.accepted.load(Relaxed) - self.closed.load(Relaxed)
    }

    /// The page that Prometheus fetches.
    pub fn render(&self) -> String {
        let mut out = String::with_capacity(2048);
        self.write(&mut out).expect("writing to a string cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        describe(out, "http_requests_total", "counter", "Requests answered, by status code.")?;
        for (code, count) in answers {
            writeln!(out, "http_requests_total{{code=\"{code}\"}} {count}")?;
        }
        let accepted = self.accepted.load(Relaxed);
        single(out, "http_connections_total", "counter", "Connections accepted.", accepted)?;
        single(out, "http_connections_open", "gauge", "Connections open now.", self.open())?;
        let refused = self.refused.load(Relaxed);
        single(
            out,
            "http_connections_refused_total",
            "counter",
            "Connections closed unserved, as there were too many.",
            refused,
        )?;
        let failed = self.failed.load(Relaxed);
        single(
            out,
            "http_connection_errors_total",
            "counter",
            "Connections that broke, or on which something other than HTTP came.",
            failed,
        )?;
        let started = self.started_at.as_secs_f64();
        single(
            out,
            "process_start_time_seconds",
            "gauge",
            "When the server started, in Unix time.",
            started,
        )?;
        let uptime = self.uptime().as_secs_f64();
        single(out, "process_uptime_seconds", "gauge", "Time since the server started.", uptime)
    }
}

fn describe(out: &mut String, name: &str, kind: &str, help: &str) -> fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

fn single(
    out: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    value: impl fmt::Display,
) -> fmt::Result {
    describe(out, name, kind, help)?;
    writeln!(out, "{name} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rendered_values_are_the_counted_ones() {
        let metrics = Metrics::new();
        (0..3).for_each(|_| metrics.connected());
        metrics.refused();
        metrics.disconnected(true);
        metrics.disconnected(false);
        [200, 404, 200].into_iter().for_each(|code| metrics.answered(code));
        let page = metrics.render();
        for line in [
            "# TYPE http_requests_total counter",
            "http_requests_total{code=\"200\"} 2",
            "http_requests_total{code=\"404\"} 1",
            "http_connections_total 3",
            "http_connections_open 1",
            "http_connections_refused_total 1",
            "http_connection_errors_total 1",
        ] {
            assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
        }
        assert_eq!(metrics.requests(), 3);
    }

    #[test]
    fn every_sample_has_a_name_that_was_described_and_a_number() {
        let metrics = Metrics::new();
        metrics.answered(200);
        let page = metrics.render();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            let name = name.split('{').next().unwrap_or_default();
            assert!(page.contains(&format!("# TYPE {name} ")), "{name} has no type");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
        }
    }
}
