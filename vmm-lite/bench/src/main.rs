//! `make bench`: measurements side by side, in one run.
//!
//! - [`moves`]: the same image under the same load, moved by vmm-lite and by QEMU, alternately
//! - [`snapshots`]: how long the guest is stopped for one, how large it is, how soon it runs again,
//!   and clones; compared to QEMU
//! - [`cold_start`]: from exec to the first line of output, vmm-lite and QEMU microvm
//! - [`sizes`]: the blackout by the size of the memory
//! - [`bulk`]: 1 GiB of memory, moved and plainly copied over the same network, alternately
//! - [`throughput`]: the key-value store as a unikernel, as a native process, and redis-server,
//!   over the same bridge
//! - [`journals`]: the store with a journal, and redis-server with its append-only file
//! - [`protection`]: a protected store, and redis-server with a replica and Sentinel: cost,
//!   recovery, lost writes
//! - [`report`]: results.json, results.md and the plots
//!
//! The systems alternate in short blocks, so that a drift of the host's speed affects all alike.

mod bulk;
mod cold_start;
mod journals;
mod load;
mod moves;
mod options;
mod plots;
mod protection;
mod report;
mod sizes;
mod snapshots;
mod system;
mod throughput;
mod watch;

use std::process::ExitCode;

use options::Options;
use vmm_lite_lab::{Result, privilege, runtime_dir};

fn main() -> ExitCode {
    let options = match Options::from_args() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{}", options::HELP);
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("bench: {wrong}\n\n{}", options::HELP);
            return ExitCode::from(2);
        }
    };
    match bench(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    privilege::enter_user_namespace_if_needed()?;
    runtime_dir::remove_on_signals()?;
    privilege::kvm()?;
    privilege::tun()?;
    let mut results = report::Results::new(options)?;
    if options.wants("cold-start") {
        results.cold_start = cold_start::run(options)?;
    }
    if options.wants("moves") {
        results.moves = moves::run(options)?;
    }
    if options.wants("sizes") {
        results.sizes = sizes::run(options)?;
    }
    if options.wants("snapshots") {
        results.snapshots = Some(snapshots::run(options)?);
    }
    if options.wants("throughput") {
        results.throughput = throughput::run(options)?;
    }
    if options.wants("journals") {
        results.journals = journals::run(options)?;
    }
    if options.wants("protection") {
        results.protection = Some(protection::run(options)?);
    }
    if options.wants("bulk") {
        results.bulk = bulk::run(options)?;
    }
    results.save(&options.out)
}
