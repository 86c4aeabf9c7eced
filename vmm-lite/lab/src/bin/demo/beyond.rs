//! Further features: post-copy, an untrusted host that is refused, clones of a running VM.

use std::process::{Command, Stdio};

use api::MoveReport;
use serde_json::Value;
use vmm_lite_lab::{
    Error, Result,
    images::image,
    process::Process,
    stats::human_ns,
    vmm::{TIMEOUT, Vmm},
};

const PORT: u16 = 7001;
/// Pages that the guest rewrites as fast as it can: 16 MiB, which no link transfers in a
/// millisecond.
const PAGES: &str = "4096";
const CLONES: usize = 20;
/// Part of the message to an untrusted host.
const NOT_TRUSTED: &str = "does not trust this one's key";

/// Shows them on both hosts.
pub fn show(vmms: &[Vmm; 2]) -> Result<()> {
    let [a, b] = vmms;
    println!("\na guest on host a rewrites {PAGES} pages as fast as it can, and checks each");
    let args = ["--name", "dirtier", "--memory", "64M", "--", "--pages", PAGES];
    let mut running = a.run(&image("dirtier")?, &args)?;
    is_whole(&running)?;

    let there = b.receive(PORT, &[])?;
    let migrate = ["migrate", "dirtier", &b.url(PORT), "--mode", "hybrid", "--json"];
    let report: MoveReport = a.report(&migrate)?;
    super::ended_well(&mut running)?;
    let Some(cost) = report.cost.filter(|cost| cost.pages_following > 0) else {
        return Err(wrong("a move whose memory follows", format!("{report:?}")));
    };
    running = there;
    let ns = |figure: Option<u64>| human_ns(figure.unwrap_or_default());
    println!(
        "it moved to host b   blackout {} (expected {}), {} pages followed within {}; the guest \
         waited for {}, {} at most",
        ns(cost.blackout_ns),
        human_ns(cost.predicted_blackout_ns),
        cost.pages_following,
        human_ns(cost.following_ns),
        cost.pages_waited_for.unwrap_or_default(),
        ns(cost.worst_wait_ns),
    );
    is_whole(&running)?;

    let listening = a.receive(PORT, &[])?;
    let refused = refused(b, &Vmm::untrusted(b.host())?, &a.url(PORT))?;
    println!("an untrusted host offers it to host a:\n    {refused}");
    b.migrate("dirtier", &a.url(PORT))?;
    super::ended_well(&mut running)?;
    running = listening;
    println!("host b, which host a trusts, moved it there after that");
    is_whole(&running)?;

    let count = CLONES.to_string();
    let forked = a.json(&["fork", "dirtier", "--count", &count, "--detach", "--json"])?;
    let names: Vec<_> = forked["clones"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|c| c["name"].as_str())
        .collect();
    println!(
        "{} clones of it run, started in {}; it was stopped for {}",
        names.len(),
        human_ns(forked["started_ns"].as_u64().unwrap_or_default()),
        human_ns(forked["fork"]["pause_ns"].as_u64().unwrap_or_default()),
    );
    let stopped = names.iter().try_for_each(|name| stop(a, name));
    is_whole(&running)?;
    stop(a, "dirtier")?;
    running.wait(TIMEOUT)?;
    stopped?;
    if names.len() == CLONES { Ok(()) } else { Err(wrong("fork", forked.to_string())) }
}

fn stop(vmm: &Vmm, name: &str) -> Result<()> {
    vmm.json(&["stop", name, "--json"]).map(|_: Value| ())
}

/// Checks the guest's self-checking memory.
fn is_whole(vm: &Process) -> Result<()> {
    let line = vm.wait_for_line("passes=", TIMEOUT)?;
    if line.contains("errors=0") { Ok(()) } else { Err(wrong("dirtier's memory", line)) }
}

/// The error of `vmm-lite migrate` on an untrusted host that tries to move the VM of `host`.
fn refused(host: &Vmm, untrusted: &Vmm, to: &str) -> Result<String> {
    // It accepts the destination's identity: it is the destination that refuses.
    let mut command: Command = host.command(&["migrate", "dirtier", to, "--trust-on-first-use"])?;
    let out = command
        .env("VMM_LITE_IDENTITY", untrusted.identity())
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Io { what: "run vmm-lite migrate".into(), source })?;
    let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    if out.status.success() {
        Err(wrong("a move from an untrusted host", "it was made".into()))
    } else if said.contains(NOT_TRUSTED) {
        Ok(said)
    } else {
        // It failed for the wrong reason.
        Err(wrong("a move from an untrusted host", said))
    }
}

fn wrong(what: &str, said: String) -> Error {
    Error::Protocol { what: what.into(), said }
}
