//! `vmm-lite ps`.

use super::stats::{bytes, duration, role, state};
use api::{Client, Error, RuntimeDir, Stats, verb};
use serde_json::json;
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
    let names = dir.names()?;
    let listed: Vec<_> =
        names.iter().filter_map(|name| Some((name, ask(&dir, name)?.ok()))).collect();
    if args.json {
        let object = |(name, stats): &(&String, Option<Stats>)| match stats {
            Some(stats) => json!(stats),
            None => json!({ "name": name, "state": "no answer" }),
        };
        super::print_json(&listed.iter().map(object).collect::<Vec<_>>())?;
    } else {
        println!("{:<20} {:>8} {:<12} {:>9} {:>9}  IP", "NAME", "PID", "STATE", "UPTIME", "MEMORY");
        listed.iter().for_each(|(name, stats)| println!("{}", line(name, stats.as_ref())));
    }
    Ok(ExitCode::SUCCESS)
}

/// A VM's stats; `None` if its process still waits for a VM.
fn ask(dir: &RuntimeDir, name: &str) -> Option<Result<Stats, Error>> {
    let answer = Client::connect_in(dir, name).and_then(|mut client| {
        client.set_timeout(TIMEOUT)?;
        client.call(verb::Stats::default())
    });
    match answer {
        // The name is claimed, and its process does not listen yet.
        Err(Error::NoVm(_)) => None,
        answer => Some(answer.inspect_err(|e| tracing::info!("{name} does not answer: {e}"))),
    }
}

fn line(name: &str, stats: Option<&Stats>) -> String {
    let Some(vm) = stats else {
        return format!("{name:<20} {:>8} {:<12} {:>9} {:>9}  -", "-", "no answer", "-", "-");
    };
    // That it hangs or was handed over is more important.
    let state = match vm {
        Stats { stalled, .. } if !stalled.is_empty() => "stalled",
        Stats { handed_to: Some(_), .. } => "handed over",
        Stats { replication: Some(set), .. } => role(set),
        vm => state(vm.state),
    };
    let (uptime, memory) = (duration(vm.uptime_ms), bytes(vm.memory_bytes));
    let ip = vm.net.as_ref().and_then(|net| net.ip.as_deref()).unwrap_or("-");
    format!("{:<20} {:>8} {state:<12} {uptime:>9} {memory:>9}  {ip}", vm.name, vm.pid)
}
