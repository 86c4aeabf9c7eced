//! `vmm-lite replay`.

use super::{
    confinement::Confinement,
    journal::{self, Moment},
};
use serde::Serialize;
use std::{
    fs::File,
    io::{self, IsTerminal},
    net::{SocketAddr, TcpListener},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};
use vmm::{
    devices::{console::Console, inputs::Traffic},
    host::confine::{self, Thread, files},
    kvm::Host,
    replication::{
        debugger::{Debugger, Left},
        journal::Opened,
        pcap::Pcap,
    },
    vm::{End, Outcome, Replayed, Resources, Resume, ResumeReason, Vm, VmPhase},
};

const EXAMPLES: &str = "\
The program runs again, instruction by instruction as it did, without a network and without
waiting: it is given what it was given then. Its output goes to standard output. What it does is
compared with what is recorded: why it leaves the CPU, what it sends, and digests of its memory and
registers.

With --gdb it waits for a debugger first, at its beginning: the first snapshot that the journal
has. gdb can break, step, and read registers and memory; it cannot change them, as the run would
be another one then. reverse-continue, reverse-step and reverse-next go back in it. `monitor
where` says which record and what time it is; `monitor until RECORD` has continue stop there;
continue at the end of the log, or detach, ends with the report. Whoever can connect can read the
VM's memory: name an address that only you can reach.

Exit code: 0 if it ran the same; 1 if not, or if the journal is damaged.

Examples:
  vmm-lite replay kv.journal
  vmm-lite replay kv.journal --verify --json
  vmm-lite replay kv.journal --until 2026-11-30T17:45:00Z --pcap kv.pcap
  vmm-lite replay kv.journal --gdb 127.0.0.1:1234      and then, in another terminal:
  gdb kv.img -ex 'target remote 127.0.0.1:1234'";

/// Run a VM again, from its journal
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The journal, made by `vmm-lite run --journal`; it may still be being written
    dir: PathBuf,

    /// Stop before this moment: the number of a record, or a time [default: the end]
    #[arg(long, value_name = "RECORD|TIME", value_parser = journal::moment)]
    until: Option<Moment>,

    /// Only compare: the program's output is discarded
    #[arg(long)]
    verify: bool,

    /// Write the packets that the VM sent and received to this file
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,

    /// Wait there for gdb, and let it run the VM, forwards and backwards
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "pcap")]
    gdb: Option<SocketAddr>,

    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Report {
    /// Whether it ran the same.
    same: bool,
    /// Position of the last record that was replayed.
    position: u64,
    /// Records of the journal.
    ends_at: u64,
    /// How it differed, and where: at the record after `position`.
    difference: Option<String>,
    /// The program's exit code, if it ended.
    exit_code: Option<i32>,
    /// How long it took, in ns.
    took_ns: u64,
}

/// Runs the verb.
///
/// # Errors
/// If the journal cannot be read, or not on this host.
pub fn run(args: Args) -> super::Result {
    files::close_inherited(&[])?;
    let output = (!args.verify && !args.json).then(|| io::stdout().as_fd().try_clone_to_owned());
    let output = output.transpose()?;
    if let Some(address) = args.gdb {
        return debug(&args, address, output);
    }
    let opened = Opened::open(&args.dir, journal::until(args.until))?;
    let host = Host::open()?;
    let console = Console::new(output);
    let identity = opened.guest.manifest.identity.clone();
    let resources = Resources::for_replay(host, &identity);
    // Neither the guest nor the journal is trusted.
    Confinement::usual().enter(identity.memory_size)?;
    let vm = Vm::prepare_with(&resources, identity, console, None)?;
    opened.load(vm.unstarted_memory().ok_or(vmm::snapshot::Error::Ran)?)?;
    let traffic = args.pcap.as_ref().map(|path| {
        let file = File::create(path);
        let pcap = file.and_then(Pcap::new);
        pcap.map(|pcap| Box::new(pcap) as Box<dyn Traffic>)
            .map_err(|e| format!("cannot write {}: {e}", path.display()))
    });
    let began = Instant::now();
    let mut held = vm.hold()?;
    held.apply(&opened.guest.state, Duration::ZERO)?;
    held.replay(opened.records(vm.ram())?, opened.at(), traffic.transpose()?)?;
    held.resume(Resume { reason: ResumeReason::Resumed, away: Duration::ZERO })?;
    // Asked before that is forbidden.
    let shown = shows_progress();
    confine::enter(Thread::Main)?;
    let replayed = wait(&vm, opened.ends_at(), shown);
    let report = report(&vm, replayed, opened.ends_at(), began.elapsed());
    tell(&report, args.json, opened.torn().is_some())?;
    Ok(ExitCode::from(u8::from(!report.same)))
}

/// Lets gdb run it.
fn debug(args: &Args, address: SocketAddr, output: Option<OwnedFd>) -> super::Result {
    let opened = Opened::open_whole(&args.dir, journal::until(args.until))?;
    let (ends_at, torn) = (opened.ends_at(), opened.torn().is_some());
    let debugger = Debugger::new(opened, Host::open()?, output)?;
    let listener =
        TcpListener::bind(address).map_err(|e| format!("cannot listen on {address}: {e}"))?;
    let address = listener.local_addr()?;
    eprintln!("vmm-lite: waits for gdb; with the image that the VM was started from, type");
    eprintln!("  gdb IMAGE -ex 'target remote {address}'");
    let began = Instant::now();
    let (vm, left) = debugger.serve(&listener)?;
    // No other client can connect any more.
    drop(listener);
    let replayed = match left {
        Left::Detached => {
            let how = Resume { reason: ResumeReason::Resumed, away: Duration::ZERO };
            vm.hold()?.resume(how)?;
            wait(&vm, ends_at, shows_progress())
        }
        Left::Ended | Left::Killed => vm.wait_replayed(Some(Duration::ZERO)).flatten(),
    };
    let report = report(&vm, replayed, ends_at, began.elapsed());
    tell(&report, args.json, torn)?;
    Ok(ExitCode::from(u8::from(!report.same)))
}

/// Whether a user sees the progress, and no output comes in between.
fn shows_progress() -> bool {
    io::stderr().is_terminal() && !io::stdout().is_terminal()
}

/// Waits for the end, and shows the progress on a terminal.
fn wait(vm: &Vm, ends_at: u64, shown: bool) -> Option<Replayed> {
    loop {
        let within = shown.then_some(Duration::from_millis(500));
        match vm.wait_replayed(within) {
            Some(ended) => return ended,
            None => eprint!("\r\x1b[K{} of {ends_at} records", vm.replay_position()),
        }
    }
}

fn report(vm: &Vm, replayed: Option<Replayed>, ends_at: u64, took: Duration) -> Report {
    let (position, difference) = match replayed {
        None => (vm.replay_position(), None),
        Some(Replayed { position, outcome, .. }) => match outcome {
            Outcome::Complete => (position, None),
            Outcome::Diverged(how) | Outcome::Unreadable(how) => (position, Some(how)),
        },
    };
    let ended = match vm.phase() {
        VmPhase::Ended(end) => Some(end),
        VmPhase::Running | VmPhase::Paused => None,
    };
    let (exit_code, failed) = match ended.as_deref() {
        Some(End::Exited(code)) => (Some(*code), None),
        Some(End::Vmm(error)) => (None, Some(vmm::host::with_causes(&**error))),
        // As recorded.
        _ => (None, None),
    };
    let difference = difference.or(failed);
    Report {
        same: difference.is_none(),
        position,
        ends_at,
        difference,
        exit_code,
        took_ns: took.as_nanos() as u64,
    }
}

fn tell(report: &Report, json: bool, torn: bool) -> Result<(), Box<dyn std::error::Error>> {
    if json {
        return Ok(super::print_json(report)?);
    }
    if torn {
        eprintln!("vmm-lite: the journal's last write was interrupted; it ends before that");
    }
    let Report { position, took_ns, .. } = report;
    let took = Duration::from_nanos(*took_ns);
    match &report.difference {
        None => eprintln!("vmm-lite: the same up to record {position}, in {took:.1?}"),
        Some(how) => {
            eprintln!("vmm-lite: not the same at record {}, after {took:.1?}: {how}", position + 1)
        }
    }
    Ok(())
}
