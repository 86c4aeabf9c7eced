//! What is seen of a VM while something is done to it, and for as long while nothing is.
//!
//! The key-value store is watched by a client that has one request under way at any time, dirtier
//! by itself. Before each act the same watch goes on for as long as the last act took, with nothing
//! done: the noise floor, in windows of the same length, as the longest gap grows with the time
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

/// How long is watched with nothing done before the first act.
const FIRST: Duration = Duration::from_millis(50);

/// What was seen in all of a scenario's blocks.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The longest gap that the guest saw in each act.
    guest: Vec<u64>,
    /// The longest that a client's request waited in each act.
    client: Vec<u64>,
    /// The same with nothing done, once for each act.
    quiet: Vec<u64>,
    /// Latency of each request during the acts, and with nothing done.
    requests: [Vec<u64>; 2],
    errors: u64,
    retransmissions: u64,
}

/// [`Samples`] in figures.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Longest gap that the guest saw on its clock, where it watched.
    pub guest_gap_ns: Option<Summary>,
    /// Worst wait of a client's request in each act, where a client watched.
    pub client_gap_ns: Option<Summary>,
    /// The same watch with nothing done, for as long: the noise floor of guest or client.
    pub noise_ns: Summary,
    /// Latency of every request of the client that was under way during an act.
    pub requests_ns: Option<Summary>,
    /// Latency of every request of the client with nothing done.
    pub quiet_requests_ns: Option<Summary>,
    /// What a client saw go wrong: errors and reconnects.
    pub client_errors: u64,
    /// TCP segments that the client's host sent again during acts and between them, on all
    /// connections.
    pub retransmissions: u64,
    /// Every longest gap, ns, in order: for the plots. What the guest saw, else the client.
    pub gaps_ns: Vec<u64>,
}

impl Figures {
    /// The longest gap as the guest saw it, else the client.
    pub fn seen(&self) -> Summary {
        self.guest_gap_ns.or(self.client_gap_ns).unwrap_or_default()
    }
}

impl Samples {
    /// In figures.
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
    /// As long as the last act took.
    window: Duration,
    retransmitted_before: u64,
}

enum Eyes {
    Client { probe: Probe, spans: Vec<Span> },
    Guest { port: StatusPort, last: Status, gaps: Vec<(u64, u64)> },
}

/// Nothing was done from `quiet` to `began`, and then something until `ended`; in ns since the
/// probe began.
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

    /// Watches with nothing done, then while `act` is.
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

    /// Ends the watch and adds what it saw.
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
            // Under way at any time of the act; with nothing done, from the first to the last byte.
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
