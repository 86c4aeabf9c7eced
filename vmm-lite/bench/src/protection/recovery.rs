//! How soon clients are answered again after the primary died, and what of the acknowledged writes
//! is lost.

use std::time::{Duration, Instant};

use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    probe::Connection,
    site::Site,
    stats::{Summary, summary},
    vmm::TIMEOUT,
};

use super::{
    pair::{Pair, set_links},
    sentinel::{PORT, address},
    steady::Steady,
    system::System,
    writers::{Finds, Writers, Written},
};
use crate::{options::Options, system::GUEST_IP};

/// Answers to each client before the primary is killed, and after.
const ANSWERS: u64 = 50;
/// The primary is killed up to so long after these.
const MOMENTS: Duration = Duration::from_millis(40);
/// A client that waited this long had lost a packet, and waited for a retransmission of TCP.
const RETRANSMISSION: Duration = Duration::from_millis(150);
/// Kills of a protected VM for each of a redis-server, as all of that has to start anew each time.
const FEWER: u32 = 4;

/// What dies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The process of the primary.
    Process,
    /// The primary's host: its links and its processes at once.
    Host,
}

impl Fault {
    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Host => "host",
        }
    }
}

/// All kills of one kind of one system.
#[derive(Clone, Debug, Serialize)]
pub struct Recovered {
    /// The system.
    pub system: String,
    /// What died.
    pub fault: Fault,
    /// From the last acknowledgement to any client before until the first one to any after, ns.
    pub any_ns: Summary,
    /// The same for a client that does not wait for its answers, if connections go on, ns.
    pub steady_ns: Option<Summary>,
    /// The same for each client by itself, ns.
    pub each_ns: Summary,
    /// Kills in which a client waited for a retransmission.
    pub retransmissions: u64,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Those that were not there afterwards.
    pub lost: u64,
    /// Connections that broke, of all clients in all kills.
    pub reconnects: u64,
    /// How often silence was taken for death before a kill. A VM was protected again then; the
    /// server that Sentinel has replaced is killed all the same.
    pub false_alarms: u32,
}

/// Kills of one kind of one system, one by one.
#[derive(Default)]
struct Samples {
    any: Vec<u64>,
    steady: Vec<u64>,
    each: Vec<u64>,
    retransmissions: u64,
    acknowledged: u64,
    lost: u64,
    reconnects: u64,
    false_alarms: u32,
}

/// Kills a system's primary, as often as the options say; `None` if nothing can take over.
pub fn run(
    site: &Site,
    options: &Options,
    fault: Fault,
    system: System,
) -> Result<Option<Recovered>> {
    match system {
        System::Protected => protected(site, options, fault).map(Some),
        System::Sentinel | System::SentinelWait | System::Colo => {
            started_anew(site, options, fault, system).map(Some)
        }
        System::Kv | System::Recorded | System::Journaled | System::Redis | System::RedisAppend => {
            Ok(None)
        }
    }
}

/// One VM survives all of the kills, protected anew after each.
fn protected(site: &Site, options: &Options, fault: Fault) -> Result<Recovered> {
    let mut pair = Pair::start(site, options)?;
    let store = address(GUEST_IP, PORT);
    drop(Connection::open_when_up(&site.client, store, TIMEOUT)?);
    pair.protect()?;
    let mut samples = Samples::default();
    while samples.any.len() < options.kills as usize {
        let steady = Steady::start(&site.client, store)?;
        let writers = Writers::start(&site.client, Finds::Address(store), false);
        writers.wait_for(ANSWERS)?;
        if !pair.is_protected() {
            writers.stop()?;
            steady.stop()?;
            pair.protect_again()?;
            continue;
        }
        let host = pair.active();
        let killed = samples.add(writers, Some(steady), || {
            if fault == Fault::Host {
                set_links(site, host, false)?;
            }
            pair.kill_primary()
        });
        killed.map_err(|e| Error::Protocol {
            what: "a protected VM after its primary died".into(),
            said: format!("{e}\n{}", pair.output()),
        })?;
        if fault == Fault::Host {
            set_links(site, host, true)?;
        }
        pair.protect()?;
    }
    samples.false_alarms = pair.false_alarms();
    eprintln!("protection: {} kills, {fault:?}: {}", options.kills, System::Protected.name());
    Ok(samples.figures(System::Protected, fault))
}

/// All of it is started anew for each kill.
fn started_anew(site: &Site, options: &Options, fault: Fault, system: System) -> Result<Recovered> {
    let kills = options.kills.div_ceil(FEWER);
    let mut samples = Samples::default();
    for _ in 0..kills {
        let mut running = system.start(site, options)?;
        drop(Connection::open_when_up(&site.client, running.address, TIMEOUT)?);
        let steady = match running.finds() {
            Finds::Address(store) => Some(Steady::start(&site.client, store)?),
            // Its connections break.
            Finds::Sentinels(..) => None,
        };
        let writers = Writers::start(&site.client, running.finds(), system.waits());
        writers.wait_for(ANSWERS)?;
        samples.false_alarms += u32::from(running.taken_for_dead(site)?);
        let killed = samples.add(writers, steady, || {
            if fault == Fault::Host {
                set_links(site, 0, false)?;
            }
            running.kill_primary(fault == Fault::Host)
        });
        drop(running);
        if fault == Fault::Host {
            set_links(site, 0, true)?;
        }
        killed?;
    }
    eprintln!("protection: {kills} kills, {fault:?}: {}", system.name());
    Ok(samples.figures(system, fault))
}

impl Samples {
    /// Kills while `writers` write, and adds what they saw.
    fn add(
        &mut self,
        writers: Writers,
        steady: Option<Steady>,
        kill: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        // The moment is what is varied.
        std::thread::sleep(MOMENTS.mul_f64(fastrand::f64()));
        let at = Instant::now();
        kill()?;
        writers.wait_for(ANSWERS)?;
        if let Some(steady) = steady {
            self.steady.push(longest(&steady.stop()?, at).as_nanos() as u64);
        }
        let (seen, lost) = writers.stop()?;
        let each: Vec<Duration> = seen.iter().map(|client| longest(&client.times, at)).collect();
        let mut together: Vec<Instant> = seen.iter().flat_map(|c| c.times.clone()).collect();
        together.sort_unstable();
        self.any.push(longest(&together, at).as_nanos() as u64);
        self.retransmissions += u64::from(each.iter().any(|gap| *gap > RETRANSMISSION));
        self.each.extend(each.iter().map(|gap| gap.as_nanos() as u64));
        self.acknowledged += seen.iter().map(Written::acknowledged).sum::<u64>();
        self.reconnects += seen.iter().map(|client| client.reconnects).sum::<u64>();
        self.lost += lost;
        Ok(())
    }

    fn figures(&self, system: System, fault: Fault) -> Recovered {
        Recovered {
            system: system.name().into(),
            fault,
            any_ns: summary(&self.any),
            steady_ns: (!self.steady.is_empty()).then(|| summary(&self.steady)),
            each_ns: summary(&self.each),
            retransmissions: self.retransmissions,
            acknowledged: self.acknowledged,
            lost: self.lost,
            reconnects: self.reconnects,
            false_alarms: self.false_alarms,
        }
    }
}

/// The longest time between two of `times`, in order, of which the later one is after `at`.
fn longest(times: &[Instant], at: Instant) -> Duration {
    let pairs = times.windows(2).filter(|pair| pair[1] > at);
    pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_that_ends_after_the_kill_counts() {
        let begin = Instant::now();
        let ms = |n: u64| begin + Duration::from_millis(n);
        let times = [0, 50, 51, 53, 60, 61].map(ms);
        assert_eq!(longest(&times, ms(52)), Duration::from_millis(7));
        assert_eq!(longest(&times, ms(55)), Duration::from_millis(7), "it began before");
        assert_eq!(longest(&times, ms(70)), Duration::ZERO);
    }
}
