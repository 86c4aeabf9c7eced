//! `vmm-lite restore`.

use super::{
    clone::Ready,
    confinement, fork,
    journal::{self, How, Moment},
    metrics::Figures,
    network, recover, report,
};
use crate::control::{Server, server};
use api::{Claim, RuntimeDir};
use std::{io, os::fd::AsFd, path::PathBuf, process::ExitCode};
use vmm::{
    devices::console::Console,
    kvm::Host,
    replication::protection::Member,
    snapshot::{
        GuestClock,
        clones::Template,
        lazy, load,
        saved_vm::SavedVm,
        start::{Change, Opened},
    },
    vm::ResumeReason,
};

const EXAMPLES: &str = "\
One VM is this process, as with `vmm-lite run`. Several are processes of their own, which share \
the memory they have not written to; they are called NAME-1, NAME-2 and so on,
and end with this one unless it is told to --detach.

A VM that comes back has the address it had, unless another VM here has it: then give it one with \
--ip (or --keep-ip, on another network). Several need one each: --ip is the first's and the \
others' follow on, --tap tap%d stands for tap1, tap2 and so
on. Ethernet addresses are made from name and address. A guest with a new address gives up the \
connections it had.

Examples:
  vmm-lite restore kv.snap --tap tap0
  vmm-lite restore kv.snap --lazy --tap tap0               its memory follows while it runs
  vmm-lite restore kv.snap --clock jump --tap tap0         timeouts that ran out meanwhile have \
  run out
  vmm-lite restore kv.snap --name kv2 --tap tap1 --ip 10.0.0.3/24
  vmm-lite restore kv.snap --count 20 --tap tap%d --ip 10.0.0.101/24 --detach
  vmm-lite restore --journal kv.journal --tap tap0         after a power cut
  vmm-lite restore --journal kv.journal --until 2026-11-30T17:45:00Z --tap tap0
  vmm-lite restore kv.snap --tap tap0 --metrics 127.0.0.1:9464
  sudo vmm-lite restore kv.snap --user nobody --tap tap0";

/// Run one or several VMs from a snapshot
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The snapshot
    #[arg(required_unless_present = "journal")]
    file: Option<PathBuf>,

    /// Go on with a VM where its journal ends, and with the journal: nothing that it has answered
    /// is lost. It is replayed from the last snapshot in the journal
    #[arg(long, value_name = "DIR")]
    #[arg(conflicts_with_all = ["file", "lazy", "count", "name", "ip", "mac"])]
    journal: Option<PathBuf>,

    /// With --journal: go back to this moment, the number of a record or a time. The journal stays
    /// as it is, and nothing of what happens from then on is kept
    #[arg(long, value_name = "RECORD|TIME", requires = "journal", value_parser = journal::moment)]
    until: Option<Moment>,

    #[command(flatten)]
    how: How,

    /// Name for it [default: the saved VM's]
    #[arg(long)]
    name: Option<String>,

    /// Start at once and load the memory while it runs; each page is verified before it is used.
    /// Not for several VMs, which share one memory: that is verified and sealed before the first of
    /// them has it
    #[arg(long, conflicts_with = "count")]
    lazy: bool,

    /// How its monotonic clock (`Instant`) continues; the wall clock (`SystemTime`) is the host's,
    /// and neither goes back
    #[arg(long, value_name = "HOW", default_value = "continue",
        value_parser = super::choices::clock(GuestClock::Continue, GuestClock::Jump))]
    clock: GuestClock,

    /// Start this many VMs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,

    /// Write a line of JSON to this descriptor when the VM runs
    #[arg(long, value_name = "FD", hide = true)]
    ready_fd: Option<i32>,

    #[command(flatten)]
    many: super::fork::Many,

    #[command(flatten)]
    network: network::Network,

    #[command(flatten)]
    confinement: confinement::Args,
}

/// Runs the verb.
///
/// # Errors
/// If the snapshot is damaged, or the VM cannot be started.
pub fn run(args: Args) -> super::Result {
    let confinement = args.confinement.begin(args.ready_fd.as_slice())?;
    if let Some(dir) = &args.journal {
        let wanted = recover::Wanted {
            dir,
            until: args.until,
            how: args.how,
            clock: args.clock,
            tap: args.network.tap.first().map(String::as_str),
            metrics: args.many.metrics.as_ref(),
        };
        return recover::run(&wanted, &confinement);
    }
    let path = args.file.ok_or("name a snapshot, or a journal with --journal")?;
    let mut ready = args.ready_fd.map(Ready::on).transpose()?;
    let signals = server::catch_signals()?;
    let file = files::open(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let snapshot = load::open(file)?;
    let guest = load::guest(&snapshot)?;
    let host = Host::open()?;
    let test = host.begin_self_test();
    guest.manifest.fits(&host.features()?)?;
    let name = args.name.as_deref().unwrap_or(&guest.manifest.identity.name);
    let numbers = args.count.map(|count| (args.many.first, count));
    let wanted = network::Wanted { name, numbers, beside: false };
    let places = args.network.places(&guest.manifest.identity, wanted)?;
    args.network.check_neighbours(&guest.manifest.identity, &places)?;
    if let Some(count) = args.count {
        args.many.metrics(count as usize)?;
        let template = Template::new()?;
        load::template(&snapshot, template.memory())?;
        template.plant(&guest)?;
        template.seal()?;
        test.passed()?;
        let (reason, clock) = (ResumeReason::Restored, args.clock);
        let how = fork::How { reason, clock, confinement, many: args.many };
        return super::fork::run_all(template, &places, how, &signals);
    }
    let [place] = &places[..] else { return Err("one VM has one name and one TAP device".into()) };
    let console = Console::new(Some(io::stdout().as_fd().try_clone_to_owned()?));
    let memory = guest.manifest.identity.memory_size;
    let claim = name_of(&guest, &place.change)?;
    let mut opened = Opened::new(host, guest, &place.change, place.tap.as_deref())?;
    opened.allow_spoofing(confinement.allow_spoofing);
    opened.limit(confinement.rates);
    let figures = Figures::serve_confined(args.many.metrics.as_ref(), &confinement, memory)?;
    fail_point!("restore.loading");
    let vm = opened.machine(console, None)?;
    if args.lazy {
        lazy::begin(&vm, snapshot)?;
    } else {
        let memory = vm.unstarted_memory().ok_or(vmm::snapshot::Error::Ran)?;
        load::memory(&snapshot, memory)?;
        drop(snapshot);
    }
    test.passed()?;
    opened.run(&vm, ResumeReason::Restored, args.clock)?;
    let server = Server::new(claim);
    confinement.watch()?;
    let member = Member::new(vm.clone());
    figures.show(&member);
    if let Some(ready) = &mut ready {
        ready.tell(&vm, server.name())?;
    }
    super::run::feed_standard_input(&vm)?;
    let end = server::serve_until_end(&member, &server, &signals)?;
    report::end(&end, None);
    Ok(ExitCode::from(super::exit::of_end(&end)))
}

/// Claims the name for a copy of `guest`.
///
/// # Errors
/// If another VM has it.
pub(super) fn name_of(guest: &SavedVm, change: &Change) -> Result<Claim, api::Error> {
    let name = change.name.as_ref().unwrap_or(&guest.manifest.identity.name);
    RuntimeDir::open()?.claim(name)
}
