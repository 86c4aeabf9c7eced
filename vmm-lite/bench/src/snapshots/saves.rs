//! Saves running guests while a client or the guest itself watches.

use std::path::Path;

use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    site::Site,
    stats::{Summary, summary},
};

use super::{BLOCK, LIMIT_MS};
use crate::{
    load::{self, Load},
    options::Options,
    system::{Guest, System},
    watch::{self, Watch},
};

/// The scenarios, unless others are requested.
const OWN: [Load; 3] = [Load::KvIdle, Load::KvLoaded, Load::Dirtier { pages: 1024 }];

/// One scenario's measurements for one system.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// vmm-lite or QEMU.
    pub system: String,
    /// As the system itself reports.
    pub pause_ns: Summary,
    /// What the guest or client saw.
    #[serde(flatten)]
    pub watch: watch::Figures,
    /// From the command until the file was on the disk.
    pub total_ns: Summary,
    /// Bytes of the file.
    pub file_bytes: Summary,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// vmm-lite first, then QEMU.
    pub figures: Vec<Figures>,
}

#[derive(Default)]
struct Samples {
    pause: Vec<u64>,
    total: Vec<u64>,
    bytes: Vec<u64>,
    watch: watch::Samples,
}

/// Saves in every scenario.
pub fn run(options: &Options, site: &Site, dir: &Path) -> Result<Vec<Scenario>> {
    let mut systems: Vec<_> =
        options.systems().into_iter().map(|which| which.on(site)).collect::<Result<_>>()?;
    let mut scenarios = Vec::new();
    for load in options.scenarios(&OWN) {
        let guest = load.guest()?;
        let mut samples: Vec<_> = systems.iter().map(|_| Samples::default()).collect();
        let mut left = options.snapshots;
        while left > 0 {
            let count = left.min(BLOCK);
            for (system, samples) in systems.iter_mut().zip(&mut samples) {
                block(site, load, &guest, system.as_mut(), count, &dir.join("saved"), samples)?;
            }
            left -= count;
            let done = options.snapshots - left;
            eprintln!("snapshots: {}: {done} of {}", load.name(), options.snapshots);
        }
        let figures =
            systems.iter().zip(&samples).map(|(system, s)| s.figures(system.name())).collect();
        scenarios.push(Scenario { name: load.name(), figures });
    }
    Ok(scenarios)
}

/// Starts a guest, saves it `count` times, ends it.
fn block(
    site: &Site,
    load: Load,
    guest: &Guest,
    system: &mut dyn System,
    count: u32,
    file: &Path,
    samples: &mut Samples,
) -> Result<()> {
    system.start(guest)?;
    if load.is_kv() {
        load::fill(site)?;
    }
    let clients = load.clients(site)?;
    let mut watch = Watch::begin(site, load)?;
    for _ in 0..count {
        let saved = watch.during(|| system.save(file, LIMIT_MS))?;
        samples.pause.push(saved.pause_ns);
        samples.total.push(saved.total_ns);
        samples.bytes.push(size(file)?);
    }
    watch.end(&mut samples.watch)?;
    drop(clients);
    system.stop()
}

/// Bytes of a file.
pub fn size(file: &Path) -> Result<u64> {
    let looked = std::fs::metadata(file);
    let looked = looked
        .map_err(|source| Error::Io { what: format!("look at {}", file.display()), source })?;
    Ok(looked.len())
}

impl Samples {
    fn figures(&self, system: &str) -> Figures {
        Figures {
            system: system.to_owned(),
            pause_ns: summary(&self.pause),
            watch: self.watch.figures(),
            total_ns: summary(&self.total),
            file_bytes: summary(&self.bytes),
        }
    }
}
