//! A standby goes on with the key-value store when its host is killed under load.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use api::{
    Stats,
    replication::{Protected, Role, Swapped},
};
use nix::sys::signal::Signal;
use vmm_lite_lab::{
    Error, Result, links,
    probe::Seen,
    process::{Process, run},
    runtime_dir::RuntimeDir,
    site::Site,
    stats::human_ns,
    vmm::{TIMEOUT, Vmm},
};

use crate::{
    load::Load,
    picture::{self, Event},
    start_store,
};

const PORT: u16 = 7100;
/// Everything here shares a few CPUs, so that a host that lives may well be silent for the usual
/// 5 ms. A false alarm would cost the protection that the demo is about.
const HEARTBEATS: [&str; 4] = ["--heartbeat", "5ms", "--misses", "20"];
/// Between two events, so that they can be told apart in the picture.
const APART: Duration = Duration::from_millis(700);
/// How often a state without notification is polled.
const LOOK: Duration = Duration::from_millis(2);

/// Shows it, and draws the client's latency through it into `svg`.
pub fn show(site: &Site, vmms: &[Vmm; 2], svg: &Path) -> Result<()> {
    let [a, b] = vmms;
    // Both hosts see this machine's file system: that is their shared storage.
    let locks = RuntimeDir::new()?;
    let arbiter = format!("file:{}", locks.path().display());
    println!(
        "\nthe key-value store runs on host a again, under the same load; a standby on host b is \
         to protect it"
    );
    let primary = start_store(a)?;
    let load = Load::start(&site.client)?;
    let url = b.url(PORT);
    let stand_by = ["standby", "--listen", &url, "--tap", "tap0", "--arbiter", &arbiter];
    let standby = Process::start(b.command(&stand_by)?)?;
    standby.wait_for_line("listening", TIMEOUT)?;
    let protect = ["protect", "kv", &url, "--arbiter", &arbiter, "--json"];
    let protected: Protected = a.report(&[&protect[..], &HEARTBEATS].concat())?;
    println!(
        "it is protected: {} pages were copied within {}, and it was stopped for {}; a dead host \
         is found after 100 ms ({}, as all hosts here share their CPUs)",
        protected.pages,
        human_ns(protected.took_ns),
        human_ns(protected.pause_ns),
        HEARTBEATS.join(" "),
    );

    let mut swaps = Vec::new();
    for (from, to) in [(a, b), (b, a)] {
        std::thread::sleep(APART);
        let began = load.now_ns();
        let swapped: Swapped = from.report(&["failover", "kv", "--json"])?;
        let ended = load.now_ns();
        swaps.push((began, ended));
        println!(
            "planned swap  {} → {}   blackout {:>8}   total {:>8}",
            from.host().ns.name,
            to.host().ns.name,
            human_ns(swapped.blackout_ns),
            human_ns(ended - began),
        );
    }
    std::thread::sleep(APART);
    let term = in_sync(a)?;

    let died = load.now_ns();
    links::set(site, links::of_host(0), false)?;
    primary.signal(Signal::SIGKILL)?;
    println!("host a dies: its links go down, its process is killed");
    // Nothing else changes the term; it took over once before, in a swap.
    let line = standby.wait_for_line(&format!("took over in term {}", term + 1), TIMEOUT)?;
    let took_over = load.now_ns();
    println!("host b, {} after that: {line}", human_ns(took_over - died));
    std::thread::sleep(APART);
    print!("vmm-lite ps on host b:\n{}", run(&mut b.command(&["ps"])?)?);

    let told = load.end()?;
    b.json(&["stop", "kv", "--json"])?;
    told.print();
    let (waited, after) = gap(&told.seen, died, took_over);
    println!(
        "the checking client waited {} from its last answer before the death to the first one \
         after, which came {} after the death",
        human_ns(waited),
        human_ns(after),
    );
    let events = [
        Event { label: "a planned swap", colour: picture::ORANGE, spans: swaps },
        Event { label: "host a dies", colour: picture::DARK_RED, spans: vec![(died, died)] },
        Event {
            label: "host b has taken over",
            colour: picture::GREEN,
            spans: vec![(took_over, took_over)],
        },
    ];
    picture::sparkline("swaps, death and takeover", &events, &told.seen);
    picture::draw(svg, "while its server swaps hosts, and its host dies", &events, &told.seen)?;
    println!("\nthe client's latency through all of that: {}", svg.display());
    told.verdict()
}

/// Waits until the standby of the store on this host is in sync; returns the term.
fn in_sync(vmm: &Vmm) -> Result<u64> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let stats: Stats = vmm.report(&["stats", "kv", "--json"])?;
        let set = stats.replication.unwrap_or_default();
        if set.role == Role::Primary && set.standbys.iter().any(|standby| standby.in_sync) {
            return Ok(set.term);
        }
        if Instant::now() > deadline {
            let said = format!("{set:?}");
            return Err(Error::Protocol { what: "the protection was lost".into(), said });
        }
        std::thread::sleep(LOOK);
    }
}

/// The client's longest wait around the takeover, in ns: from the last answer before it to the
/// first one after. And how long after the death that came.
fn gap(seen: &Seen, died: u64, took_over: u64) -> (u64, u64) {
    let answers: Vec<_> = seen.samples.iter().map(|s| s.at_ns + s.latency_ns).collect();
    // An answer may have been under way when the links went down, and one may have arrived before
    // the takeover was reported here.
    let around = answers.windows(2).filter(|pair| pair[1] > died && pair[0] < took_over);
    let waits = around.map(|pair| (pair[1] - pair[0], pair[1] - died));
    waits.max().unwrap_or_default()
}
