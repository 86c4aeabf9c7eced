//! The blackout by the size of the memory: the key-value store under load in VMs of 16 MiB to 4
//! GiB, moved alternately.
//!
//! The store holds the same few data in all of them, so that the results show only what grows with
//! the memory.

use std::fmt::Write;

use serde::Serialize;
use vmm_lite_lab::{
    Result,
    site::Site,
    stats::{Summary, human_ns, summary},
};

use crate::{
    load::Load,
    options::Options,
    report::three,
    system::{Guest, Moved, PHASES, System, VmmLite},
};

/// The sizes, in MiB.
const MIB: [u32; 5] = [16, 64, 256, 1024, 4096];
/// Moves at one size before the next follows.
const BLOCK: u32 = 10;
/// Limit for the median at 4 GiB, in thousandths of the one at 16 MiB.
const MOST_PERMILLE: u64 = 1300;

/// Measurements of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// Memory of the VM, in MiB.
    pub memory_mib: u32,
    /// Request to pause to first instruction, ns.
    pub blackout_ns: Summary,
    /// The same by phase, in the order of [`PHASES`], ns.
    pub phases_ns: [Summary; PHASES.len()],
    /// Pages sent in the blackout.
    pub last_pages: Summary,
    /// The whole move, ns.
    pub total_ns: Summary,
    /// Bytes sent.
    pub bytes_sent: Summary,
}

/// Moves a VM of each size, alternately.
pub fn run(options: &Options) -> Result<Vec<Size>> {
    let site = Site::new()?;
    let mut system = VmmLite::new(&site)?;
    let mut samples = MIB.map(|mib| (mib, Vec::new()));
    let mut left = options.moves;
    while left > 0 {
        let moves = left.min(BLOCK);
        for (memory_mib, samples) in &mut samples {
            let load = Load::KvLoaded;
            system.start(&Guest { memory_mib: *memory_mib, ..load.guest()? })?;
            let clients = load.clients(&site)?;
            for _ in 0..moves {
                samples.push(system.move_on()?);
            }
            drop(clients);
            system.stop()?;
        }
        left -= moves;
        eprintln!("sizes: {} of {}", options.moves - left, options.moves);
    }
    let figures = samples.map(|(memory_mib, moved)| {
        let each =
            |figure: &dyn Fn(&Moved) -> u64| summary(&moved.iter().map(figure).collect::<Vec<_>>());
        let of = |figure: fn(&Moved) -> u64| each(&figure);
        Size {
            memory_mib,
            blackout_ns: of(|m| m.blackout_ns),
            phases_ns: std::array::from_fn(|n| each(&|m| m.phases_ns[n])),
            last_pages: of(|m| m.last_pages),
            total_ns: of(|m| m.total_ns),
            bytes_sent: of(|m| m.bytes_sent),
        }
    });
    Ok(figures.into())
}

/// Writes the table.
pub fn write_markdown(sizes: &[Size], t: &mut String) -> std::fmt::Result {
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else { return Ok(()) };
    writeln!(
        t,
        "| kv, redis-benchmark, {} moves at each size | blackout: median / p99 / max \
         | of it quiesce / last pages and state / transfer and apply / commit and run, median \
         | last pages | whole move | KiB sent |",
        first.blackout_ns.count
    )?;
    writeln!(t, "| --- | ---: | ---: | ---: | ---: | ---: |")?;
    for size in sizes {
        writeln!(
            t,
            "| {} MiB | {} | {} | {} | {} | {} |",
            size.memory_mib,
            three(size.blackout_ns),
            size.phases_ns.map(|phase| human_ns(phase.median)).join(" / "),
            size.last_pages.median,
            human_ns(size.total_ns.median),
            size.bytes_sent.median / 1024,
        )?;
    }
    let permille = last.blackout_ns.median * 1000 / first.blackout_ns.median.max(1);
    writeln!(
        t,
        "\nThe median at {} MiB is {:.2} times the one at {} MiB; the target is at most {:.1}.\n",
        last.memory_mib,
        permille as f64 / 1000.0,
        first.memory_mib,
        MOST_PERMILLE as f64 / 1000.0,
    )
}
