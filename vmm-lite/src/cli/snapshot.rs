//! `vmm-lite snapshot`.

use super::{
    call_off::CallOff,
    waiting::{Teller, Wait},
};
use crate::control::server::catch_signals;
use serde_json::{Value, json};
use std::{io::IsTerminal, os::fd::AsFd, path::PathBuf, process::ExitCode};
use vmm::{
    capture::Way,
    snapshot::{load, new_file::NewFile},
};

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
    #[arg(long, value_name = "MODE", value_parser = super::choices::way(), default_value = "auto")]
    mode: Way,
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
    let mut request = json!({ "verb": "snapshot", "stay_paused": args.stop, "mode": args.mode });
    args.wait.to_request(&mut request);
    let files: Vec<_> = [Some(file.file()), base.as_ref()].into_iter().flatten().collect();
    let files: Vec<_> = files.iter().map(|f| f.as_fd()).collect();
    call_off.asked(&client)?;
    let report = match client.request_with(&request, &files, watch(args.json)) {
        Err(e) => return call_off.failed(e),
        report => report?,
    };
    drop(call_off);
    if let Err(e) = file.publish() {
        if args.stop && report["ran"] == true {
            client.call("resume")?;
        }
        return Err(cannot(e).into());
    }
    if args.stop {
        client.stop(false)?;
    }
    if args.json {
        println!("{report}");
    } else {
        print!("{}", table(&args, &report));
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the progress of a copy to people.
pub(super) fn watch(json: bool) -> impl FnMut(Value) {
    let live = !json && std::io::stderr().is_terminal();
    let mut teller = Teller::default();
    move |progress| {
        if !teller.tell(&progress) && live {
            let number = |key: &str| progress[key].as_u64().unwrap_or_default();
            let percent = number("pages") * 100 / number("of").max(1);
            eprint!("\r\x1b[K{percent} %{}", if percent >= 100 { "\r\x1b[K" } else { "" });
        }
    }
}

/// The pause, by phase.
pub(super) fn pause_table(report: &Value) -> String {
    let us = |key: &str| format!("{:>9.1} µs", report["phases"][key].as_f64().unwrap_or(0.0) / 1e3);
    match report["pause_ns"].as_f64() {
        None => String::new(),
        Some(ns) => format!(
            "pause                {:>9.1} µs\n  quiesce            {}\n  memory             {}\n  \
             state              {}\n  resume             {}\n",
            ns / 1e3,
            us("quiesce_ns"),
            us("memory_ns"),
            us("state_ns"),
            us("resume_ns"),
        ),
    }
}

fn table(args: &Args, report: &Value) -> String {
    let n = |key: &str| report[key].as_u64().unwrap_or_default();
    let after = if args.stop { "stopped" } else { "keeps running" };
    format!(
        "{} is in {}, and {after}\n{}all of it            {:>9.1} ms\nfile                 {:>9} \
         KiB: {} pages saved, {} zero, {} as in the base, {} hinted\n",
        args.name,
        args.file.display(),
        pause_table(report),
        n("total_ns") as f64 / 1e6,
        n("bytes") / 1024,
        n("pages_saved"),
        n("pages_zero"),
        n("pages_same"),
        n("pages_dont_care"),
    )
}
