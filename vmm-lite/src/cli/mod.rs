//! The verbs of the command line, one file each.
//!
//! A verb returns the process's exit code, or an error that [`main`] prints with all its causes.

pub mod arguments;
mod arrivals;
pub mod build;
pub mod call_off;
pub mod cancel;
mod choices;
pub mod clone;
pub mod confinement;
pub mod console;
pub mod exit;
pub mod failover;
pub mod fork;
pub mod identity;
pub mod inspect;
mod jail;
mod journal;
pub mod merge;
pub mod metrics;
pub mod migrate;
pub mod neighbours;
mod network;
pub mod pause;
pub mod protect;
mod protector;
pub mod ps;
mod rates;
pub mod receive;
mod recover;
pub mod replay;
pub mod report;
pub mod restore;
pub mod resume;
pub mod revert;
pub mod run;
mod secured;
pub mod snapshot;
pub mod standby;
pub mod stats;
pub mod stop;
pub mod symbols;
pub mod unprotect;
pub mod waiting;

use api::Client;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The result of a verb.
pub type Result = std::result::Result<ExitCode, Box<dyn std::error::Error>>;

const EXAMPLES: &str = "\
Examples:
  vmm-lite build apps/kv                          make kv.img from a Rust crate
  vmm-lite run hello.img                          run an image; no network, no root
  vmm-lite run kv.img --name kv --memory 16M --tap tap0 --ip 10.0.0.2/24 -- --port 6379
  vmm-lite ps                                     what runs
  vmm-lite stats kv --json                        one VM in figures
  vmm-lite identity init                          once on each host, before VMs move
  vmm-lite receive --listen tcp://10.9.0.2:7000 --tap tap0      on the host a VM will move to
  vmm-lite migrate kv tcp://10.9.0.2:7000                       on the host where it runs
  vmm-lite standby --listen tcp://10.9.0.2:7100 --tap tap0 --arbiter ARB     on a second host
  vmm-lite protect kv tcp://10.9.0.2:7100 --arbiter ARB   the VM lives on when its host dies
  vmm-lite snapshot kv kv.snap                    save it while it runs
  vmm-lite restore kv.snap --lazy --tap tap0      and run it again, at once
  vmm-lite run kv.img --journal kv.journal …      keep all that it is given, on disk
  vmm-lite restore --journal kv.journal --tap tap0              after a power cut
  vmm-lite replay kv.journal --verify             run it again, and compare
  vmm-lite fork kv --count 20 --tap tap%d --ip 10.0.0.101/24    copies that share its memory

Exit codes:
  0      done
  1      the verb failed; the message says why
  2      the command line is wrong
  run, receive, restore and standby end with the guest's exit code (a panic: 101), or with
  125    vmm-lite could not start or run the VM
  126    the guest broke the interface to vmm-lite and was ended
  130, 143   ended by SIGINT; by SIGTERM or `vmm-lite stop`
  132, 134, 139   the guest failed: illegal instruction; abort; wild access or stack overflow";

/// Run Rust unikernels, and move them between hosts while they serve.
#[derive(Parser, Debug)]
#[command(name = "vmm-lite", version, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    /// What to log to standard error, as in RUST_LOG: error, debug, vmm::devices=trace, … [default:
    /// warn]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    Build(build::Args),
    Run(run::Args),
    Ps(ps::Args),
    Stats(stats::Args),
    Console(console::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Stop(stop::Args),
    Migrate(migrate::Args),
    Cancel(cancel::Args),
    Receive(receive::Args),
    Standby(standby::Args),
    Protect(protect::Args),
    Unprotect(unprotect::Args),
    Failover(failover::Args),
    Identity(identity::Args),
    Snapshot(snapshot::Args),
    Restore(restore::Args),
    Replay(replay::Args),
    Fork(fork::Args),
    #[command(hide = true)]
    Clone(clone::Args),
    Revert(revert::Args),
    Inspect(inspect::Args),
    Merge(merge::Args),
    Symbols(symbols::Args),
}

/// Parses the command line, runs the verb, prints its error.
pub fn main() -> ExitCode {
    vmm::host::confine::one_arena();
    let cli = Cli::parse();
    start_logging(cli.log.as_deref());
    #[cfg(debug_assertions)]
    if let Err(e) = vmm::fail_point::arm(arguments::duration) {
        eprintln!("vmm-lite: {e}");
        return ExitCode::from(2);
    }
    let (result, failed) = match cli.verb {
        Verb::Build(args) => (build::run(args), 1),
        Verb::Run(args) => (run::run(args), exit::EXIT_VMM),
        Verb::Ps(args) => (ps::run(args), 1),
        Verb::Stats(args) => (stats::run(args), 1),
        Verb::Console(args) => (console::run(args), 1),
        Verb::Pause(args) => (pause::run(args), 1),
        Verb::Resume(args) => (resume::run(args), 1),
        Verb::Stop(args) => (stop::run(args), 1),
        Verb::Migrate(args) => (migrate::run(args), 1),
        Verb::Cancel(args) => (cancel::run(args), 1),
        Verb::Receive(args) => (receive::run(args), exit::EXIT_VMM),
        Verb::Standby(args) => (standby::run(args), exit::EXIT_VMM),
        Verb::Protect(args) => (protect::run(args), 1),
        Verb::Unprotect(args) => (unprotect::run(args), 1),
        Verb::Failover(args) => (failover::run(args), 1),
        Verb::Identity(args) => (identity::run(args), 1),
        Verb::Snapshot(args) => (snapshot::run(args), 1),
        Verb::Restore(args) => (restore::run(args), exit::EXIT_VMM),
        Verb::Replay(args) => (replay::run(args), 1),
        Verb::Fork(args) => (fork::run(args), 1),
        Verb::Clone(args) => (clone::run(args), exit::EXIT_VMM),
        Verb::Revert(args) => (revert::run(args), 1),
        Verb::Inspect(args) => (inspect::run(args), 1),
        Verb::Merge(args) => (merge::run(args), 1),
        Verb::Symbols(args) => (symbols::run(args), 1),
    };
    result.unwrap_or_else(|error| {
        eprintln!("vmm-lite: {}", vmm::host::with_causes(&*error));
        ExitCode::from(failed)
    })
}

/// Connects to the VM `name`; standard error shows what a verb waits for.
fn connect(name: &str) -> std::result::Result<Client, api::Error> {
    Ok(Client::connect(name)?.telling(|what| eprintln!("vmm-lite: waiting for {what}")))
}

/// Prints a value as one line of JSON.
fn print_json(value: &impl serde::Serialize) -> serde_json::Result<()> {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

/// Logs go to standard error. A filter costs a millisecond of the cold start, so a run that did not
/// request logs gets warnings only, without one.
fn start_logging(filter: Option<&str>) {
    let from_env = std::env::var("RUST_LOG").ok().filter(|f| !f.is_empty());
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr);
    match filter.map(str::to_owned).or(from_env) {
        Some(filter) => builder.with_env_filter(filter).init(),
        None => builder.with_max_level(tracing::Level::WARN).init(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
