//! The same image under the same load, moved by vmm-lite and by QEMU, in turn.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use qemu_tests::dirtier::StatusPort;
use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    images::image,
    probe::{Connection, Probe, Seen},
    redis,
    site::Site,
    stats::{Summary, summary},
    vmm::PATIENCE,
};

use crate::{
    options::Options,
    system::{
        DIRTIER_MEMORY_MIB, GUEST_IP, Guest, KV_MEMORY_MIB, Qemu, System, VmmLite, connect,
        qemu_error,
    },
};

/// Moves of one system before the other has its turn.
const BLOCK: u32 = 10;
const KV_PORT: u16 = 6379;
const DIRTIER_PORT: u16 = 7070;
/// How long a client is watched with no move, to know the noise of the host.
const NOISE: Duration = Duration::from_millis(500);

/// One scenario's figures for one system.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// vmm-lite or QEMU.
    pub system: String,
    /// By the system's own account.
    pub blackout_ns: Summary,
    /// Longest gap that the guest saw on its clock, where it watched.
    pub guest_gap_ns: Option<Summary>,
    /// Worst wait of a client's request in each move, where a client watched.
    pub client_gap_ns: Option<Summary>,
    /// The same watch with no move: the noise floor of guest or client.
    pub noise_ns: Summary,
    /// From the command until it was done.
    pub total_ns: Summary,
    /// Bytes sent.
    pub bytes_sent: Summary,
    /// What a client saw go wrong: errors and reconnects.
    pub client_errors: u64,
    /// TCP retransmissions that a client counted.
    pub retransmissions: u64,
    /// Every blackout, ns, in order: for the plots. What the guest saw, else the client's gap.
    pub gaps_ns: Vec<u64>,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// vmm-lite first, then QEMU.
    pub figures: Vec<Figures>,
}

/// What is moved, under which load.
#[derive(Clone, Copy, Debug)]
enum Load {
    KvIdle,
    KvLoaded,
    Dirtier { pages: u32 },
}

impl Load {
    const ALL: [Self; 5] = [
        Self::KvIdle,
        Self::KvLoaded,
        Self::Dirtier { pages: 64 },
        Self::Dirtier { pages: 1024 },
        Self::Dirtier { pages: 4096 },
    ];

    fn name(self) -> String {
        match self {
            Self::KvIdle => "kv, idle".into(),
            Self::KvLoaded => "kv, redis-benchmark".into(),
            Self::Dirtier { pages } => format!("dirtier, {pages} pages"),
        }
    }
}

/// Raw samples of one system in one scenario.
#[derive(Default)]
struct Samples {
    blackout: Vec<u64>,
    guest: Vec<u64>,
    client: Vec<u64>,
    noise: Vec<u64>,
    total: Vec<u64>,
    bytes: Vec<u64>,
    client_errors: u64,
    retransmissions: u64,
}

/// Runs every scenario.
pub fn run(options: &Options) -> Result<Vec<Scenario>> {
    let images = Images { kv: image("kv")?, dirtier: image("dirtier")? };
    let site = Site::new()?;
    let mut systems: [Box<dyn System>; 2] =
        [Box::new(VmmLite::new(&site)?), Box::new(Qemu::new(&site))];
    let mut scenarios = Vec::new();
    for load in Load::ALL {
        let mut samples = [Samples::default(), Samples::default()];
        let mut left = options.moves;
        while left > 0 {
            let moves = left.min(BLOCK);
            for (system, samples) in systems.iter_mut().zip(&mut samples) {
                block(&site, &images, load, system.as_mut(), moves, samples)?;
            }
            left -= moves;
            eprintln!("moves: {}: {} of {}", load.name(), options.moves - left, options.moves);
        }
        let figures =
            systems.iter().zip(&samples).map(|(system, s)| s.figures(system.name())).collect();
        scenarios.push(Scenario { name: load.name(), figures });
    }
    Ok(scenarios)
}

struct Images {
    kv: PathBuf,
    dirtier: PathBuf,
}

/// Starts a guest, moves it `moves` times, ends it.
fn block(
    site: &Site,
    images: &Images,
    load: Load,
    system: &mut dyn System,
    moves: u32,
    samples: &mut Samples,
) -> Result<()> {
    match load {
        Load::KvIdle | Load::KvLoaded => {
            system.start(&Guest { image: &images.kv, memory_mib: KV_MEMORY_MIB, args: &[] })?;
            kv_block(site, matches!(load, Load::KvLoaded), system, moves, samples)?;
        }
        Load::Dirtier { pages } => {
            let (pages, port) = (pages.to_string(), DIRTIER_PORT.to_string());
            let args = ["--pages", &pages, "--port", &port, "--quiet"];
            system.start(&Guest {
                image: &images.dirtier,
                memory_mib: DIRTIER_MEMORY_MIB,
                args: &args,
            })?;
            dirtier_block(site, system, moves, samples)?;
        }
    }
    system.stop()
}

fn kv_block(
    site: &Site,
    loaded: bool,
    system: &mut dyn System,
    moves: u32,
    samples: &mut Samples,
) -> Result<()> {
    let guest: SocketAddr = format!("{GUEST_IP}:{KV_PORT}").parse().expect("constants");
    drop(Connection::open_when_up(&site.client, guest, PATIENCE)?);
    let _load = loaded
        .then(|| {
            redis::background_load(&site.client, guest, &["-t", "set,get", "-c", "8", "-r", "1000"])
        })
        .transpose()?;
    let probe = Probe::start(&site.client, guest, "bench", Duration::from_micros(200))?;
    std::thread::sleep(NOISE);
    let quiet_until = probe.began.elapsed().as_nanos() as u64;
    let mut spans = Vec::new();
    for _ in 0..moves {
        let began = probe.began.elapsed().as_nanos() as u64;
        let said = system.move_on()?;
        spans.push((began, probe.began.elapsed().as_nanos() as u64));
        samples.blackout.push(said.blackout_ns);
        samples.total.push(said.total_ns);
        samples.bytes.push(said.bytes_sent);
    }
    let seen = probe.stop();
    samples.noise.extend(worst(&seen, 0, quiet_until));
    samples.client.extend(spans.iter().filter_map(|&(from, to)| worst(&seen, from, to)));
    samples.client_errors += seen.errors.len() as u64 + seen.reconnects;
    samples.retransmissions += seen.retransmissions;
    Ok(())
}

/// The longest a request waited that was on its way between `from` and `to`.
fn worst(seen: &Seen, from: u64, to: u64) -> Option<u64> {
    let during = |at: u64, latency: u64| at + latency >= from && at <= to;
    seen.samples.iter().filter(|s| during(s.at_ns, s.latency_ns)).map(|s| s.latency_ns).max()
}

fn dirtier_block(
    site: &Site,
    system: &mut dyn System,
    moves: u32,
    samples: &mut Samples,
) -> Result<()> {
    let mut port = StatusPort::new(connect(site, DIRTIER_PORT)?);
    let mut last = port.reset().map_err(qemu_error)?;
    std::thread::sleep(NOISE);
    samples.noise.push(port.reset_and_look()?);
    for _ in 0..moves {
        let said = system.move_on()?;
        let now = port.status().map_err(qemu_error)?;
        if now.nonce != last.nonce || now.errors > 0 {
            return Err(Error::Protocol {
                what: "dirtier's memory after a move".into(),
                said: format!("{now:?}, before it {last:?}"),
            });
        }
        samples.guest.push(now.max_gap_ns);
        samples.blackout.push(said.blackout_ns);
        samples.total.push(said.total_ns);
        samples.bytes.push(said.bytes_sent);
        last = port.reset().map_err(qemu_error)?;
    }
    Ok(())
}

/// The longest gap so far, then forgotten.
trait ResetAndLook {
    fn reset_and_look(&mut self) -> Result<u64>;
}

impl ResetAndLook for StatusPort {
    fn reset_and_look(&mut self) -> Result<u64> {
        let gap = self.status().map_err(qemu_error)?.max_gap_ns;
        self.reset().map_err(qemu_error)?;
        Ok(gap)
    }
}

impl Samples {
    fn figures(&self, system: &str) -> Figures {
        let some = |values: &[u64]| (!values.is_empty()).then(|| summary(values));
        Figures {
            system: system.to_owned(),
            blackout_ns: summary(&self.blackout),
            guest_gap_ns: some(&self.guest),
            client_gap_ns: some(&self.client),
            noise_ns: summary(&self.noise),
            total_ns: summary(&self.total),
            bytes_sent: summary(&self.bytes),
            client_errors: self.client_errors,
            retransmissions: self.retransmissions,
            gaps_ns: if self.guest.is_empty() { self.client.clone() } else { self.guest.clone() },
        }
    }
}
