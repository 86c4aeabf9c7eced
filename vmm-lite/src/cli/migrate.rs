//! `vmm-lite migrate`.

use super::identity;
use crate::{
    control::Client,
    migration::{
        address::Address,
        credentials::{self, PLAINTEXT_WARNING},
    },
};
use migrate::report::Report;
use serde_json::{Value, json};
use std::{io::IsTerminal, process::ExitCode};

const EXAMPLES: &str = "\
The destination waits with `vmm-lite receive --listen tcp://HOST:PORT`. Until the VM has left it can be called off with Ctrl-C; whatever
fails before that leaves it running here. Both hosts must trust each other: see `vmm-lite identity`.

Examples:
  vmm-lite migrate kv tcp://10.9.0.2:7000
  vmm-lite migrate kv tcp://10.9.0.2:7000 --json | jq .blackout_ns";

/// Move a VM to another host
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// Where it moves
    #[arg(value_name = "tcp://HOST:PORT")]
    to: Address,
    /// Print the report as one JSON object; times in nanoseconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    security: identity::Security,
}

/// Runs the verb.
///
/// # Errors
/// When there is no such VM, or the move fails: then the VM runs on here.
pub fn run(args: Args) -> super::Result {
    let mut client = Client::connect(&args.name)?;
    let dir = args.security.dir();
    if dir.is_none() {
        eprintln!("vmm-lite: warning: {PLAINTEXT_WARNING}");
    }
    let (member, how) = credentials::to_request(dir.as_ref())?;
    let mut request = json!({ "verb": "migrate", "to": args.to.to_string() });
    request[member] = how;
    let live = !args.json && std::io::stderr().is_terminal();
    let answer = client.request(&request, |progress| {
        if live {
            show(&progress);
        }
    })?;
    if live {
        eprint!("\r\x1b[K");
    }
    if args.json {
        println!("{answer}");
        return Ok(ExitCode::SUCCESS);
    }
    match serde_json::from_value::<Report>(answer) {
        Ok(report) => print!("{}", table(&args, &report)),
        // It moved, and the connection at the commit was lost: there are no times.
        Err(_) => println!("{} runs at {} now", args.name, args.to),
    }
    Ok(ExitCode::SUCCESS)
}

fn show(progress: &Value) {
    let number = |key: &str| progress[key].as_u64().unwrap_or_default();
    let doing = progress["doing"].as_str().unwrap_or_default();
    eprint!(
        "\r\x1b[K{doing}: round {}, {} KiB sent",
        number("rounds"),
        number("bytes_sent") / 1024
    );
}

fn table(args: &Args, r: &Report) -> String {
    let us = |ns: u64| format!("{:>9.1} µs", ns as f64 / 1e3);
    let p = &r.phases;
    format!(
        "{} runs at {} now\n\
         blackout             {}\n\
         \x20 quiesce            {}\n\
         \x20 last pages, state  {}\n\
         \x20 transfer, apply    {}\n\
         \x20 commit, run        {}\n\
         whole move           {}\n\
         sent                 {:>9} KiB in {} rounds, {} pages in the blackout\n",
        args.name,
        args.to,
        us(r.blackout_ns),
        us(p.quiesce_ns),
        us(p.last_pages_and_state_ns),
        us(p.transfer_and_apply_ns),
        us(p.commit_and_run_ns),
        us(r.total_ns),
        r.bytes_sent / 1024,
        r.rounds,
        r.last_pages,
    )
}
