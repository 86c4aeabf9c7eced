//! `make demo`: the main feature, live migration, shown.
//!
//! Two hosts and a client as network namespaces, and a key-value store on the first host.
//! redis-benchmark and a checking client load it from the client; the VM moves back and forth; then
//! come a table and a picture. After that, further features ([`beyond`]), and a host that is killed
//! ([`protection`]).

mod beyond;
mod load;
mod picture;
mod protection;
mod table;

use std::{fs, io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use api::MoveReport;
use vmm_lite_lab::{
    Error, Result,
    images::{image, workspace},
    privilege,
    process::Process,
    runtime_dir,
    site::Site,
    stats::human_ns,
    vmm::{TIMEOUT, Vmm},
};

use load::{Load, Told};
use picture::Event;

const HELP: &str = "\
Shows a key-value store moving between two hosts under load, and living on when its host is killed.

Usage: demo [--moves N] [--out DIR]

  --moves N   how often the VM moves                       [default: 20]
  --out DIR   where report.json, latency.svg and
              failover.svg are put                         [default: out/demo]

Everything runs in network namespaces that end with this program. Needs /dev/kvm and /dev/net/tun; \
without root it
works inside a user namespace where the kernel allows one.";

const MIGRATION_PORT: u16 = 7000;

/// One move.
struct Move {
    /// Begin and end, in ns since the probe began.
    began_ns: u64,
    ended_ns: u64,
    report: MoveReport,
}

struct Options {
    moves: u32,
    out: PathBuf,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(wrong) => {
            eprintln!("demo: {wrong}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match demo(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("demo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> std::result::Result<Option<Options>, String> {
    let mut options = Options { moves: 20, out: workspace().join("out/demo") };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-h" | "--help" => return Ok(None),
            "--moves" => {
                options.moves = args
                    .next()
                    .and_then(|n| n.parse().ok())
                    .filter(|n| *n > 0)
                    .ok_or("--moves takes a number from 1")?;
            }
            "--out" => options.out = args.next().ok_or("--out takes a directory")?.into(),
            other => return Err(format!("unknown option {other:?}")),
        }
    }
    Ok(Some(options))
}

fn demo(options: &Options) -> Result<()> {
    privilege::enter_user_namespace_if_needed()?;
    runtime_dir::remove_on_signals()?;
    privilege::kvm()?;
    privilege::tun()?;

    let site = Site::new()?;
    let vmms = [Vmm::on(&site.hosts[0])?, Vmm::on(&site.hosts[1])?];
    println!("two hosts and a client are up; starting the key-value store on host a");
    let mut running = start_store(&vmms[0])?;
    let load = Load::start(&site.client)?;
    println!(
        "redis-benchmark ({} connections), {} writers and a checking client are at it; moving {} \
         times",
        load::CONNECTIONS,
        load::WRITERS,
        options.moves
    );

    let mut moves = Vec::new();
    for n in 0..options.moves {
        let (from, to) = (&vmms[n as usize % 2], &vmms[(n as usize + 1) % 2]);
        let destination = to.receive(MIGRATION_PORT, &["--tap", "tap0"])?;
        let began_ns = load.now_ns();
        let migrate = ["migrate", "kv", &to.url(MIGRATION_PORT), "--json"];
        let report: MoveReport = from.report(&migrate)?;
        let ended_ns = load.now_ns();
        let mut source = std::mem::replace(&mut running, destination);
        ended_well(&mut source)?;
        let cost = report.cost.unwrap_or_default();
        println!(
            "move {:>2}  {} → {}   blackout {:>8}   total {:>8}   {} KiB",
            n + 1,
            from.host().ns.name,
            to.host().ns.name,
            human_ns(cost.blackout_ns.unwrap_or_default()),
            human_ns(cost.total_ns),
            cost.bytes_sent / 1024,
        );
        moves.push(Move { began_ns, ended_ns, report });
        // The client's picture needs a gap between the marks.
        std::thread::sleep(Duration::from_millis(100));
    }

    let told = load.end()?;
    let last = &vmms[options.moves as usize % 2];
    last.json(&["stop", "kv", "--json"])?;
    running.wait(TIMEOUT)?;

    table::print(&moves, &told);
    save(options, &moves, &told)?;
    told.verdict()?;
    beyond::show(&vmms)?;
    protection::show(&site, &vmms, &options.out.join("failover.svg"))
}

/// Starts the key-value store on this host.
fn start_store(vmm: &Vmm) -> Result<Process> {
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", load::CIDR];
    vmm.run(&image("kv")?, &args)
}

/// The source ends by itself once no more packets for the guest arrive there.
fn ended_well(source: &mut Process) -> Result<()> {
    let status = source.wait(TIMEOUT)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: "vmm-lite run (the source, after the move)".into(),
        status: status.to_string(),
        stderr: source.output(),
    })
}

fn save(options: &Options, moves: &[Move], told: &Told) -> Result<()> {
    let seen = &told.seen;
    let io = |what: &str| {
        let what = format!("{what} {}", options.out.display());
        move |source| Error::Io { what, source }
    };
    fs::create_dir_all(&options.out).map_err(io("make"))?;
    let report = serde_json::json!({
        "moves": moves.iter().map(|m| &m.report).collect::<Vec<_>>(),
        "client": {
            "requests": seen.samples.len(),
            "confirmed_writes": told.writes,
            "requests_of_all_clients": told.served,
            "errors": seen.errors,
            "reconnects": seen.reconnects,
            "tcp_retransmissions": seen.retransmissions,
        },
    });
    let mut file =
        fs::File::create(options.out.join("report.json")).map_err(io("write report.json in"))?;
    writeln!(file, "{report:#}").map_err(io("write report.json in"))?;
    let svg = options.out.join("latency.svg");
    let spans = moves.iter().map(|m| (m.began_ns, m.ended_ns)).collect();
    let events = [Event { label: "a move", colour: picture::ORANGE, spans }];
    picture::sparkline("moves", &events, seen);
    picture::draw(&svg, &format!("over {} moves", moves.len()), &events, seen)?;
    println!("\nthe client's latency over time, moves marked: {}", svg.display());
    Ok(())
}
