//! `vmm-lite failover`.

use super::arguments;
use api::verb::Failover;
use std::{process::ExitCode, time::Duration};

const EXAMPLES: &str = "\
Nothing is lost, and the VM stays protected: this host is its standby then. Use it before you take \
a host down.

Examples:
  vmm-lite failover kv
  vmm-lite failover kv --json | jq .blackout_ns";

/// Swap roles with a VM's standby: it runs the VM then
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// The standby, if there are several: a member, as `vmm-lite stats` lists them
    #[arg(long, value_name = "MEMBER")]
    to: Option<String>,
    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = arguments::duration)]
    timeout: Duration,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it runs on here.
pub fn run(args: Args) -> super::Result {
    let timeout_ns = Some(api::nanoseconds(args.timeout));
    let swapped = super::connect(&args.name)?.call(Failover { to: args.to, timeout_ns })?;
    if args.json {
        super::print_json(&swapped)?;
    } else {
        let blackout = Duration::from_nanos(swapped.blackout_ns);
        println!("{} runs at its standby now, this host is the standby", args.name);
        println!("term                 {}", swapped.term);
        println!("blackout             {blackout:.1?}, as this host can tell");
    }
    Ok(ExitCode::SUCCESS)
}
