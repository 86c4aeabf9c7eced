//! The same image under the same load, moved by vmm-lite and by QEMU, alternately.

use serde::Serialize;
use vmm_lite_lab::{
    Result,
    site::Site,
    stats::{Summary, summary},
};

use crate::{
    load::Load,
    options::Options,
    system::{Guest, Moved, PHASES, System},
    watch::{self, Watch},
};

/// Moves of one system before the other follows.
const BLOCK: u32 = 10;

/// One scenario's measurements for one system.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// vmm-lite or QEMU.
    pub system: String,
    /// As the system itself reports.
    pub blackout_ns: Summary,
    /// The same by phase, in the order of [`PHASES`]; zeros if the system does not report them.
    pub phases_ns: [Summary; PHASES.len()],
    /// What the guest or client saw.
    #[serde(flatten)]
    pub watch: watch::Figures,
    /// From the command until it was done.
    pub total_ns: Summary,
    /// Bytes sent.
    pub bytes_sent: Summary,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// vmm-lite first, then QEMU.
    pub figures: Vec<Figures>,
}

/// Raw samples of one system in one scenario.
#[derive(Default)]
struct Samples {
    moved: Vec<Moved>,
    watch: watch::Samples,
}

/// Runs every requested scenario.
pub fn run(options: &Options) -> Result<Vec<Scenario>> {
    let site = Site::new()?;
    let mut systems: Vec<_> =
        options.systems().into_iter().map(|which| which.on(&site)).collect::<Result<_>>()?;
    let mut scenarios = Vec::new();
    for load in options.scenarios(&Load::ALL) {
        let guest = load.guest()?;
        let mut samples: Vec<_> = systems.iter().map(|_| Samples::default()).collect();
        let mut left = options.moves;
        while left > 0 {
            let moves = left.min(BLOCK);
            for (system, samples) in systems.iter_mut().zip(&mut samples) {
                block(&site, load, &guest, system.as_mut(), moves, samples)?;
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

/// Starts a guest, moves it `moves` times, ends it.
fn block(
    site: &Site,
    load: Load,
    guest: &Guest,
    system: &mut dyn System,
    moves: u32,
    samples: &mut Samples,
) -> Result<()> {
    system.start(guest)?;
    let clients = load.clients(site)?;
    let mut watch = Watch::begin(site, load)?;
    for _ in 0..moves {
        samples.moved.push(watch.during(|| system.move_on())?);
    }
    watch.end(&mut samples.watch)?;
    drop(clients);
    system.stop()
}

impl Samples {
    fn figures(&self, system: &str) -> Figures {
        let each = |figure: &dyn Fn(&Moved) -> u64| {
            summary(&self.moved.iter().map(figure).collect::<Vec<_>>())
        };
        let of = |figure: fn(&Moved) -> u64| each(&figure);
        Figures {
            system: system.to_owned(),
            blackout_ns: of(|m| m.blackout_ns),
            phases_ns: std::array::from_fn(|n| each(&|m| m.phases_ns[n])),
            watch: self.watch.figures(),
            total_ns: of(|m| m.total_ns),
            bytes_sent: of(|m| m.bytes_sent),
        }
    }
}
