//! `make demo`: the main feature, live migration, shown.
//!
//! Two hosts and a client as network namespaces, and a key-value store on the first host.
//! redis-benchmark and a checking client load it from the client; the VM moves back and forth; then
//! come a table and a picture. After that, further features ([`beyond`]).

mod beyond;
mod picture;
mod table;

use std::{fs, io::Write as _, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use api::MoveReport;
use vmm_lite_lab::{
    Error, Result,
    images::{image, workspace},
    net::Namespace,
    privilege,
    probe::{Connection, Probe, Seen},
    process::Process,
    redis, runtime_dir,
    site::Site,
    stats::human_ns,
    vmm::{TIMEOUT, Vmm},
    writers::Writers,
};

const HELP: &str = "\
Shows a key-value store moving between two hosts under load.

Usage: demo [--moves N] [--out DIR]

  --moves N   how often the VM moves                       [default: 20]
  --out DIR   where report.json and latency.svg are put    [default: out/demo]

Everything runs in network namespaces that end with this program. Needs /dev/kvm and /dev/net/tun; \
without root it
works inside a user namespace where the kernel allows one.";

const GUEST: &str = "10.0.0.2";
const GUEST_PORT: u16 = 6379;
const MIGRATION_PORT: u16 = 7000;
/// Connections that check every write of their own, several in flight on each.
const WRITERS: usize = 2;

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

    let kv = image("kv")?;
    let site = Site::new()?;
    let vmms = [Vmm::on(&site.hosts[0])?, Vmm::on(&site.hosts[1])?];
    let guest: SocketAddr =
        (GUEST.parse::<std::net::Ipv4Addr>().expect("a constant"), GUEST_PORT).into();

    println!("two hosts and a client are up; starting the key-value store on host a");
    let cidr = format!("{GUEST}/24");
    let mut running =
        vmms[0].run(&kv, &["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", &cidr])?;
    drop(Connection::open_when_up(&site.client, guest, TIMEOUT)?);

    let mut load =
        redis::background_load(&site.client, guest, &["-t", "set,get", "-c", "8", "-r", "1000"])?;
    let writers = Writers::start(&site.client, guest, "demo:writes", WRITERS)?;
    let probe = Probe::start(&site.client, guest, "demo:counter", Duration::from_micros(200))?;
    println!(
        "redis-benchmark (8 connections), {WRITERS} writers and a checking client are at it; \
         moving {} times",
        options.moves
    );

    let mut moves = Vec::new();
    for n in 0..options.moves {
        let (from, to) = (&vmms[n as usize % 2], &vmms[(n as usize + 1) % 2]);
        let destination = to.receive(MIGRATION_PORT, &["--tap", "tap0"])?;
        let began_ns = probe.began.elapsed().as_nanos() as u64;
        let migrate = ["migrate", "kv", &to.url(MIGRATION_PORT), "--json"];
        let report: MoveReport = from.report(&migrate)?;
        let ended_ns = probe.began.elapsed().as_nanos() as u64;
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

    let load_lives = load.is_running();
    drop(load);
    let seen = probe.stop();
    let writes = writers.stop()?;
    let served = served(&site.client, guest)?;
    let last = &vmms[options.moves as usize % 2];
    last.json(&["stop", "kv", "--json"])?;
    running.wait(TIMEOUT)?;

    table::print(&moves, &seen, writes, served);
    picture::sparkline(&moves, &seen);
    save(options, &moves, &seen, writes, served)?;
    verdict(&seen, load_lives)?;
    beyond::show(&vmms)
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

/// Requests that the store has served since it was started, by its own count, which moved with it.
fn served(client: &Namespace, guest: SocketAddr) -> Result<u64> {
    let info = redis::cli(client, guest, &["INFO", "stats"])?;
    info.lines()
        .find_map(|line| line.trim().strip_prefix("total_commands_processed:")?.parse().ok())
        .ok_or_else(|| Error::Protocol { what: "INFO stats".into(), said: info })
}

fn save(options: &Options, moves: &[Move], seen: &Seen, writes: u64, served: u64) -> Result<()> {
    let io = |what: &str| {
        let what = format!("{what} {}", options.out.display());
        move |source| Error::Io { what, source }
    };
    fs::create_dir_all(&options.out).map_err(io("make"))?;
    let report = serde_json::json!({
        "moves": moves.iter().map(|m| &m.report).collect::<Vec<_>>(),
        "client": {
            "requests": seen.samples.len(),
            "confirmed_writes": writes,
            "requests_of_all_clients": served,
            "errors": seen.errors,
            "reconnects": seen.reconnects,
            "tcp_retransmissions": seen.retransmissions,
        },
    });
    let mut file =
        fs::File::create(options.out.join("report.json")).map_err(io("write report.json in"))?;
    writeln!(file, "{report:#}").map_err(io("write report.json in"))?;
    let svg = options.out.join("latency.svg");
    picture::draw(&svg, moves, seen)?;
    println!("\nthe client's latency over time, moves marked: {}", svg.display());
    Ok(())
}

fn verdict(seen: &Seen, load_lives: bool) -> Result<()> {
    let wrong = |said: String| Error::Protocol { what: "the client".into(), said };
    if let Some(first) = seen.errors.first() {
        return Err(wrong(format!("{} errors, the first: {first}", seen.errors.len())));
    }
    if seen.reconnects > 0 {
        return Err(wrong(format!("{} reconnects", seen.reconnects)));
    }
    if !load_lives {
        return Err(wrong("redis-benchmark ended during the moves".into()));
    }
    Ok(())
}
