//! `vmm-lite restore --journal`: a VM goes on where its journal ends.

use super::{
    confinement::Confinement,
    journal::{self, How, Moment},
    metrics::Figures,
    report,
};
use crate::control::{Server, server};
use api::RuntimeDir;
use std::{
    io,
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use vmm::{
    devices::console::Console,
    host::confine::{self, Thread},
    kvm::Host,
    replication::{
        journal::{Error, Journal, Opened, Reopened},
        protection::Member,
    },
    snapshot::GuestClock,
    vm::{Operation, Outcome, Replayed, Resources, Resume, ResumeReason, Vm},
};

/// Stack of the thread that lets the VM go on.
const STACK: usize = 256 << 10;

/// What the user wants.
pub struct Wanted<'a> {
    pub dir: &'a Path,
    pub until: Option<Moment>,
    pub how: How,
    pub clock: GuestClock,
    pub tap: Option<&'a str>,
    pub metrics: Option<&'a crate::metrics::At>,
}

/// Why the VM does not go on.
#[derive(thiserror::Error, Debug)]
enum Failure {
    #[error(
        "the VM does not run as its journal says, from record {} on: {what}; the journal \
         stays as it is, for `vmm-lite replay`", .position + 1
    )]
    NotTheSame { position: u64, what: String },
    #[error(transparent)]
    Vm(#[from] vmm::vm::Error),
    #[error(transparent)]
    Journal(#[from] Error),
    #[error(transparent)]
    Confine(#[from] confine::Error),
    #[error("cannot start a thread")]
    Thread(#[from] io::Error),
}

/// Runs the VM.
///
/// # Errors
/// If the journal cannot be read, or not on this host.
pub fn run(wanted: &Wanted<'_>, confinement: &Confinement) -> super::Result {
    let signals = server::catch_signals()?;
    journal::check_jail(confinement.jails_files(), wanted.dir)?;
    // Going back leaves the journal as it is. Going on cuts what an interrupted write left.
    let reopened = match wanted.until {
        None => Some(Reopened::open(wanted.dir, wanted.how.options())?),
        Some(_) => None,
    };
    let opened = Opened::open(wanted.dir, journal::until(wanted.until))?;
    let host = Host::open()?;
    host.self_test()?;
    let identity = opened.guest.manifest.identity.clone();
    let claim = RuntimeDir::open()?.claim(&identity.name)?;
    let resources = Resources::on(host, wanted.tap)?;
    let figures = Figures::serve_confined(wanted.metrics, confinement, identity.memory_size)?;
    // What it printed up to there was printed before.
    let vm = Vm::prepare_with(&resources, identity, Console::new(None), None)?;
    drop(resources);
    opened.load(vm.unstarted_memory().ok_or(vmm::snapshot::Error::Ran)?)?;
    let mut held = vm.hold()?;
    if confinement.allow_spoofing {
        held.allow_spoofing();
    }
    held.limit(&confinement.rates);
    held.apply(&opened.guest.state, Duration::ZERO)?;
    held.replay(opened.records(vm.ram())?, opened.at(), None)?;
    held.resume(Resume { reason: ResumeReason::Resumed, away: Duration::ZERO })?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    let server = Server::new(claim);
    // Nothing else is done with it before it goes on.
    let replaying = vm.begin(Operation::Replay)?;
    let (going_on, clock, how) = (vm.clone(), wanted.clock, wanted.how);
    let journal = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&journal);
    std::thread::Builder::new().name(Thread::Replay.name().into()).stack_size(STACK).spawn(
        move || {
            let gone_on = confine::enter(Thread::Replay)
                .map_err(Failure::from)
                .and_then(|()| go_on(&going_on, reopened, clock, how, output));
            drop(replaying);
            match gone_on {
                Ok(journal) => *kept.lock().unwrap_or_else(PoisonError::into_inner) = journal,
                Err(e) => going_on.fail(e, || {}),
            }
        },
    )?;
    confine::enter(Thread::Main)?;
    confinement.watch()?;
    let member = Member::new(vm.clone());
    figures.show(&member);
    super::run::feed_standard_input(&vm)?;
    let end = server::serve_until_end(&member, &server, &signals)?;
    journal::finish(journal.lock().unwrap_or_else(PoisonError::into_inner).take());
    report::end(&end, None);
    Ok(ExitCode::from(super::exit::of_end(&end)))
}

/// Lets the VM go on once it has replayed its journal.
fn go_on(
    vm: &Vm,
    reopened: Option<Reopened>,
    clock: GuestClock,
    how: How,
    output: std::os::fd::OwnedFd,
) -> Result<Option<Journal>, Failure> {
    // `None`: its program ended, or it was stopped meanwhile.
    let Some(Replayed { position, outcome, .. }) = vm.wait_replayed(None).flatten() else {
        return Ok(None);
    };
    match outcome {
        Outcome::Complete => {}
        Outcome::Diverged(what) | Outcome::Unreadable(what) => {
            return Err(Failure::NotTheSame { position, what });
        }
    }
    let away = away(vm);
    vm.console().print_to(output);
    let mut held = vm.hold()?;
    held.go_live(clock.passes(away))?;
    let journal = reopened.map(|reopened| reopened.go_on(&mut held)).transpose()?;
    if journal.is_none() {
        eprintln!(
            "vmm-lite: the VM goes on from record {position}; its journal stays as it is, and \
             keeps nothing of what happens from now on"
        );
    }
    held.resume(Resume { reason: ResumeReason::TakenOver, away })?;
    vm.announce_when_up();
    if let Some(journal) = &journal {
        how.make_snapshots(journal, vm)?;
    }
    Ok(journal)
}

/// How long ago the guest read its clock last, by the wall clock.
fn away(vm: &Vm) -> Duration {
    let then = Duration::from_nanos(vm.replayed_wall_ns());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(then)
}
