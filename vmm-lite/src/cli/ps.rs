//! `vmm-lite ps`.

use api::{Client, Error, RuntimeDir};
use serde_json::{Value, json};
use std::{process::ExitCode, time::Duration};

/// A VM that takes longer to answer is listed as not answering.
const TIMEOUT: Duration = Duration::from_secs(2);

/// List the running VMs
///
/// Those of this user, as listed in this user's runtime directory.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  vmm-lite ps\n  vmm-lite ps --json | jq -r '.[].name'")]
pub struct Args {
    /// Print an array of what `stats` prints for each
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If the runtime directory cannot be read.
pub fn run(args: Args) -> super::Result {
    let dir = RuntimeDir::open()?;
    let stats: Vec<Value> = dir.names()?.iter().filter_map(|name| ask(&dir, name)).collect();
    if args.json {
        println!("{}", Value::from(stats));
    } else {
        println!("{:<20} {:>8} {:<12} {:>9} {:>9}  IP", "NAME", "PID", "STATE", "UPTIME", "MEMORY");
        stats.iter().for_each(|vm| println!("{}", line(vm)));
    }
    Ok(ExitCode::SUCCESS)
}

/// A VM's stats; `None` if its process still waits for a VM.
fn ask(dir: &RuntimeDir, name: &str) -> Option<Value> {
    let answer = Client::connect_in(dir, name).and_then(|mut client| {
        client.set_timeout(TIMEOUT)?;
        client.call("stats")
    });
    match answer {
        Ok(stats) => Some(stats),
        // The name is claimed, and its process does not listen yet.
        Err(Error::NoVm(_)) => None,
        Err(e) => {
            tracing::info!("{name} does not answer: {e}");
            Some(json!({ "name": name, "state": "no answer" }))
        }
    }
}

/// The VM's state, with precedence for *hangs* and *handed over*.
fn state(vm: &Value) -> &str {
    match &vm["stalled"] {
        Value::Array(stalled) if !stalled.is_empty() => "stalled",
        _ if vm["handed_to"].is_string() => "handed over",
        _ => vm["state"].as_str().unwrap_or("-"),
    }
}

fn line(vm: &Value) -> String {
    let text = |key: &str| vm[key].as_str().unwrap_or("-").to_owned();
    let number = |key: &str| vm[key].as_u64();
    let pid = number("pid").map_or("-".into(), |n| n.to_string());
    let uptime = number("uptime_ms").map_or("-".into(), super::stats::duration);
    let memory = number("memory_bytes").map_or("-".into(), super::stats::bytes);
    let ip = vm["net"]["ip"].as_str().unwrap_or("-");
    format!("{:<20} {pid:>8} {:<12} {uptime:>9} {memory:>9}  {ip}", text("name"), state(vm))
}
