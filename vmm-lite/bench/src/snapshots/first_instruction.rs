//! From exec to the guest's first instruction, for guests of three sizes with half in use.

use std::{path::Path, time::Duration};

use qemu_harness::dirtier::StatusPort;
use serde::Serialize;
use vmm_lite_lab::{
    Result,
    site::Site,
    stats::{Summary, summary},
};

use super::{BLOCK, restores::name, saves::size};
use crate::{
    load::{DIRTIER_PORT, dirtier},
    options::Options,
    system::{Restore, System, connect, qemu_error},
};

/// Memory of the guests, in MiB.
const SIZES: [u32; 3] = [16, 256, 1024];
/// Half of a MiB in pages.
const PAGES_PER_MIB: u32 = 128;
/// Ways that read all of the memory first are slow, and so are repeated this many times less often.
const LESS: u32 = 10;
/// How long QEMU may stop a guest to save it here, in ms: with less it never finishes for a guest
/// that rewrites its memory all the time.
const LIMIT_MS: u64 = 20_000;

/// One way to start, at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// The command.
    pub name: String,
    /// Memory of the guest.
    pub memory_mib: u32,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// From exec until the guest ran, as the system itself reports.
    pub runs_ns: Summary,
}

/// Saves a guest of each size with each system, and starts it from the file in every way,
/// alternately.
pub fn run(options: &Options, site: &Site, dir: &Path) -> Result<Vec<Figures>> {
    let mut figures = Vec::new();
    for memory_mib in SIZES {
        let guest = dirtier(memory_mib * PAGES_PER_MIB, memory_mib)?;
        let mut turns: Vec<(Box<dyn System>, _, Restore, Vec<u64>)> = Vec::new();
        for which in options.systems() {
            let mut system = which.on(site)?;
            let file = dir.join(format!("{memory_mib}.{}", which.key()));
            system.start(&guest)?;
            wait_for_all_pages(site)?;
            system.save(&file, LIMIT_MS)?;
            system.stop()?;
            for way in system.ways() {
                turns.push((which.on(site)?, file.clone(), *way, Vec::new()));
            }
        }
        let wanted = |way: Restore| match way {
            Restore::Lazy => options.snapshots,
            Restore::Eager => options.snapshots.div_ceil(LESS),
        };
        let rounds = options.snapshots.div_ceil(BLOCK);
        for round in 1..=rounds {
            for (system, file, way, samples) in &mut turns {
                // Each way has its share of every round.
                while (samples.len() as u32) < wanted(*way) * round / rounds {
                    samples.push(system.restore(&guest, file, "tap0", *way)?.took_ns());
                    system.kill();
                }
            }
        }
        eprintln!("first instruction: {memory_mib} MiB");
        for (system, file, way, samples) in &turns {
            figures.push(Figures {
                name: name(system.as_ref(), *way),
                memory_mib,
                file_bytes: size(file)?,
                runs_ns: summary(samples),
            });
        }
        for (_, file, ..) in turns {
            // It may be large; it does not exist if another way has removed the same file.
            let _ = std::fs::remove_file(file);
        }
    }
    Ok(figures)
}

/// Waits until the guest has written to all of its pages.
fn wait_for_all_pages(site: &Site) -> Result<()> {
    let mut port = StatusPort::new(connect(site, DIRTIER_PORT)?);
    while port.status().map_err(qemu_error)?.passes == 0 {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
