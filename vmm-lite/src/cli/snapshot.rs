//! `vmm-lite snapshot`.

use super::{
    call_off::CallOff,
    waiting::{Teller, Wait},
};
use crate::control::server::catch_signals;
use api::{
    ForkReport, Progress, SnapshotReport,
    copies::PausePhases,
    progress::Pages,
    verb::{CopyMode, Resume, Snapshot},
};
use std::{io::IsTerminal, os::fd::AsFd, path::PathBuf, process::ExitCode};
use vmm::snapshot::{load, new_file::NewFile};

const EXAMPLES: &str = "\
The VM is paused for about as long as in a move, and keeps running. The file appears under its \
name when it is complete and on the disk, and not before,
whatever happens. The verb first waits for memory that has not arrived yet, after a move with
post-copy or a lazy restore. With --diff the file holds only what differs from another snapshot of
the same VM; `vmm-lite merge` makes a complete one of the two.

Examples:
  vmm-lite snapshot kv kv.snap
  vmm-lite snapshot kv monday.snap --diff sunday.snap
  vmm-lite snapshot kv kv.snap --stop && vmm-lite restore kv.snap
  vmm-lite snapshot kv kv.snap --json | jq .pause_ns";

/// Save a VM to a file
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// The file; an existing one is replaced
    file: PathBuf,
    /// Save only what differs from this snapshot
    #[arg(long, value_name = "BASE")]
    diff: Option<PathBuf>,
    /// How to copy a running VM
    #[arg(long, value_name = "MODE", value_parser = super::choices::copy_mode(),
        default_value = "auto")]
    mode: CopyMode,
    /// Stop the VM once the file is complete
    #[arg(long)]
    stop: bool,
    #[command(flatten)]
    wait: Wait,
    /// Print the report as one JSON object; times in nanoseconds
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or the file cannot be written: then the VM keeps running.
pub fn run(args: Args) -> super::Result {
    let call_off = CallOff::on(catch_signals()?, &args.name, || {})?;
    let mut client = super::connect(&args.name)?;
    let cannot = |e| format!("cannot write {}: {e}", args.file.display());
    let file = NewFile::at(&args.file).map_err(cannot)?;
    let base = args.diff.as_deref().map(files::open).transpose();
    let base = base.map_err(|e| {
        format!("cannot read {}: {e}", args.diff.clone().unwrap_or_default().display())
    })?;
    if let Some(base) = &base {
        // Verify the base here, before the VM is disturbed.
        load::open(base.try_clone()?)?;
    }
    let request =
        Snapshot { stay_paused: args.stop, mode: args.mode, timeout_ns: args.wait.timeout_ns() };
    let files: Vec<_> = [Some(file.file()), base.as_ref()].into_iter().flatten().collect();
    let files: Vec<_> = files.iter().map(|f| f.as_fd()).collect();
    call_off.asked(&client)?;
    let report = match client.call_with(request, &files, watch(args.json)) {
        Err(e) => return call_off.failed(e),
        report => report?,
    };
    drop(call_off);
    if let Err(e) = file.publish() {
        if args.stop && report.ran {
            client.call(Resume::default())?;
        }
        return Err(cannot(e).into());
    }
    if args.stop {
        client.stop(false)?;
    }
    if args.json {
        super::print_json(&report)?;
    } else {
        print!("{}", table(&args, &report));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the progress of a copy to people.
pub(super) fn watch(json: bool) -> impl FnMut(Progress) {
    let live = !json && std::io::stderr().is_terminal();
    let mut teller = Teller::default();
    move |progress| {
        teller.tell(&progress);
        if let (Progress::Pages(Pages { pages, of }), true) = (progress, live) {
            let percent = pages * 100 / of.max(1);
            eprint!("\r\x1b[K{percent} %{}", if percent >= 100 { "\r\x1b[K" } else { "" });
        }
    }
}

/// The pause, by phase.
pub(super) fn pause_table(report: &ForkReport) -> String {
    let Some(ns) = report.pause_ns else { return String::new() };
    let us = |ns: u64| format!("{:>9.1} µs", ns as f64 / 1e3);
    let PausePhases { quiesce_ns, memory_ns, state_ns, resume_ns } =
        report.phases.unwrap_or_default();
    format!(
        "pause                {}\n  quiesce            {}\n  memory             {}\n  \
         state              {}\n  resume             {}\n",
        us(ns),
        us(quiesce_ns),
        us(memory_ns),
        us(state_ns),
        us(resume_ns),
    )
}

fn table(args: &Args, report: &SnapshotReport) -> String {
    let after = if args.stop { "stopped" } else { "keeps running" };
    format!(
        "{} is in {}, and {after}\n{}all of it            {:>9.1} ms\nfile                 {:>9} \
         KiB: {} pages saved, {} zero, {} as in the base, {} hinted\n",
        args.name,
        args.file.display(),
        pause_table(&report.copy),
        report.copy.total_ns as f64 / 1e6,
        report.bytes / 1024,
        report.copy.pages_saved,
        report.pages_zero,
        report.pages_same,
        report.copy.pages_dont_care,
    )
}
