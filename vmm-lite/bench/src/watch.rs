//! What is seen of a VM during an operation, and for as long without one.
//!
//! A client with one request in flight at any time watches the key-value store; dirtier watches
//! itself. Before each operation the same watch runs for as long as the last operation took. That
//! is the noise floor, in windows of the same length, as the longest gap grows with the time
//! watched.

use std::time::Duration;

use qemu_harness::dirtier::{Status, StatusPort};
use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    probe::{Probe, Seen},
    site::Site,
    stats::{Summary, summary},
};

use crate::{
    load::{DIRTIER_PORT, Load, kv_address},
    system::{connect, qemu_error},
};

/// Length of the watch before the first operation.
const FIRST: Duration = Duration::from_millis(50);

/// Observations of all of a scenario's blocks.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The longest gap that the guest saw in each operation.
    guest: Vec<u64>,
    /// The longest wait of a client's request in each operation.
    client: Vec<u64>,
    /// The same without an operation, once for each operation.
    quiet: Vec<u64>,
    /// Latency of each request during the operations, and without one.
    requests: [Vec<u64>; 2],
    errors: u64,
    retransmissions: u64,
}

/// [`Samples`] summarized.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Longest gap that the guest saw on its clock, if it watched.
    pub guest_gap_ns: Option<Summary>,
    /// Longest wait of a client's request in each operation, if a client watched.
    pub client_gap_ns: Option<Summary>,
    /// The same watch without an operation, for as long: the noise floor of guest or client.
    pub noise_ns: Summary,
    /// Latency of every request of the client that was in flight during an operation.
    pub requests_ns: Option<Summary>,
    /// Latency of every request of the client without an operation.
    pub quiet_requests_ns: Option<Summary>,
    /// Failures that a client saw: errors and reconnects.
    pub client_errors: u64,
    /// TCP segments that the client's host retransmitted during operations and between them, on all
    /// connections.
    pub retransmissions: u64,
    /// Every longest gap, ns, in order: for the plots. As the guest saw it, otherwise the client.
    pub gaps_ns: Vec<u64>,
}

impl Figures {
    /// The longest gap as the guest saw it, otherwise the client.
    pub fn seen(&self) -> Summary {
        self.guest_gap_ns.or(self.client_gap_ns).unwrap_or_default()
    }
}

impl Samples {
    /// Summarizes them.
    pub fn figures(&self) -> Figures {
        let some = |values: &[u64]| (!values.is_empty()).then(|| summary(values));
        let [during, quiet] = &self.requests;
        Figures {
            guest_gap_ns: some(&self.guest),
            client_gap_ns: some(&self.client),
            noise_ns: summary(&self.quiet),
            requests_ns: some(during),
            quiet_requests_ns: some(quiet),
            client_errors: self.errors,
            retransmissions: self.retransmissions,
            gaps_ns: if self.guest.is_empty() { self.client.clone() } else { self.guest.clone() },
        }
    }
}

/// A watch of one guest.
pub struct Watch<'a> {
    site: &'a Site,
    eyes: Eyes,
    /// As long as the last operation took.
    window: Duration,
    retransmitted_before: u64,
}

enum Eyes {
    Client { probe: Probe, spans: Vec<Span> },
    Guest { port: StatusPort, last: Status, gaps: Vec<(u64, u64)> },
}

/// No operation from `quiet` to `began`, and an operation until `ended`; in ns since the probe
/// began.
struct Span {
    quiet: u64,
    began: u64,
    ended: u64,
}

impl<'a> Watch<'a> {
    /// Begins to watch the guest of `load`, which runs.
    pub fn begin(site: &'a Site, load: Load) -> Result<Self> {
        let eyes = if load.is_kv() {
            let pace = Duration::from_micros(200);
            let probe = Probe::start(&site.client, kv_address(), "bench", pace)?;
            Eyes::Client { probe, spans: Vec::new() }
        } else {
            let mut port = StatusPort::new(connect(site, DIRTIER_PORT)?);
            let last = port.reset().map_err(qemu_error)?;
            Eyes::Guest { port, last, gaps: Vec::new() }
        };
        let retransmitted_before = site.client.tcp_retransmissions()?;
        Ok(Self { site, eyes, window: FIRST, retransmitted_before })
    }

    /// Watches without an operation, then while `act` runs.
    pub fn during<T>(&mut self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let (done, window) = match &mut self.eyes {
            Eyes::Client { probe, spans } => {
                let now = || probe.began.elapsed().as_nanos() as u64;
                let quiet = now();
                std::thread::sleep(self.window);
                let began = now();
                let done = act()?;
                let ended = now();
                spans.push(Span { quiet, began, ended });
                (done, ended - began)
            }
            Eyes::Guest { port, last, gaps } => {
                port.reset().map_err(qemu_error)?;
                std::thread::sleep(self.window);
                let quiet = port.status().map_err(qemu_error)?;
                let before = port.reset().map_err(qemu_error)?;
                let began = std::time::Instant::now();
                let done = act()?;
                let window = began.elapsed().as_nanos() as u64;
                let now = port.status().map_err(qemu_error)?;
                if now.nonce != last.nonce || now.errors > 0 || now.passes < before.passes {
                    return Err(Error::Protocol {
                        what: "dirtier's memory afterwards".into(),
                        said: format!("{now:?}, before it {before:?}"),
                    });
                }
                gaps.push((quiet.max_gap_ns, now.max_gap_ns));
                (done, window)
            }
        };
        self.window = Duration::from_nanos(window);
        Ok(done)
    }

    /// Ends the watch and adds its observations.
    pub fn end(self, samples: &mut Samples) -> Result<()> {
        let retransmitted = self.site.client.tcp_retransmissions()?;
        samples.retransmissions += retransmitted - self.retransmitted_before;
        match self.eyes {
            Eyes::Guest { gaps, .. } => {
                samples.quiet.extend(gaps.iter().map(|(quiet, _)| quiet));
                samples.guest.extend(gaps.iter().map(|(_, during)| during));
            }
            Eyes::Client { probe, spans } => samples.add(&probe.stop(), &spans),
        }
        Ok(())
    }
}

impl Samples {
    fn add(&mut self, seen: &Seen, spans: &[Span]) {
        let [during, quiet] = &mut self.requests;
        for span in spans {
            // In flight at any time of the operation; without one, from the first to the last byte.
            let within = |at: u64, end: u64| end >= span.began && at <= span.ended;
            let before = |at: u64, end: u64| at >= span.quiet && end <= span.began;
            for (of, worst, all) in [
                (&within as &dyn Fn(u64, u64) -> bool, &mut self.client, &mut *during),
                (&before, &mut self.quiet, &mut *quiet),
            ] {
                let samples = seen.samples.iter().filter(|s| of(s.at_ns, s.at_ns + s.latency_ns));
                let first = all.len();
                all.extend(samples.map(|s| s.latency_ns));
                worst.extend(all[first..].iter().max());
            }
        }
        self.errors += seen.errors.len() as u64 + seen.reconnects;
    }
}
