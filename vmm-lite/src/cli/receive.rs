//! `vmm-lite receive`.

use super::{
    arguments,
    arrivals::{self, Ready, wait},
    report,
};
use crate::control::{Server, server};
use std::{
    process::ExitCode,
    sync::{Arc, mpsc::channel},
    time::Duration,
};
use vmm::{
    host::confine::{self, Thread},
    kvm,
    migration::{destination::Receiver, listener},
    replication::protection::{Arrivals, Member},
    vm::VmPhase,
};

/// How long an ended VM's process waits for a source that has not heard the outcome: a live source
/// asks about twice a second.
const LAST_WORD: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
The process waits for one VM, becomes it, and ends as it ends. A move that fails leaves it waiting \
for the next. Only hosts that
this one trusts may send: see `vmm-lite identity`.

Examples:
  vmm-lite receive --listen tcp://10.9.0.2:7000 --tap tap0
  vmm-lite receive --listen tcp://10.9.0.2:7000 --tap tap0 --name kv2 --memory-max 1G";

/// Wait for a VM that moves here, and run it
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    arrivals: arrivals::Args,
    /// Declare a VM lost if post-copy pages are missing and its source has been silent for this
    /// long. Without a limit it waits, as a dead host and a cut link look the same from here:
    /// `vmm-lite stop` ends it [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    lost_after: Option<Duration>,
}

/// Runs the verb.
///
/// # Errors
/// If this process cannot receive.
pub fn run(args: Args) -> super::Result {
    let listen = args.arrivals.listen.clone();
    let (mut ready, ()) = args.arrivals.open(|_| Ok(()))?;
    ready.offering.lost_after = args.lost_after;
    ready.offering.fault_cost = match ready.offering.resources.host().fault_cost() {
        Ok(cost) => Some(cost),
        Err(e @ kvm::Error::Lacks(_)) => {
            tracing::info!("brownouts are not known: {e}");
            None
        }
        Err(e) => return Err(e.into()),
    };
    let figures = ready.confine()?;
    let Ready { confinement, signals, naming, offering, policy, listener, .. } = ready;
    let (arrived, arrivals) = channel();
    let receiver = Arc::new(Receiver::new(offering, arrived)?);
    eprintln!("vmm-lite: listening on {listen}");
    // The thread that serves the source owns it, as long as there is a source to serve.
    let moves = Arc::downgrade(&receiver);
    listener::serve(listener, Arc::new(Arrivals::new(receiver)), policy)?;
    confine::enter(Thread::Main)?;
    confinement.watch()?;
    let Some(vm) = wait(&arrivals, &signals)? else {
        return Ok(ExitCode::from(128 + libc::SIGTERM as u8));
    };
    let claim = naming.take().ok_or("the VM that arrived has no name here")?;
    let (name, paused) = (claim.name(), matches!(vm.phase(), VmPhase::Paused));
    eprintln!(
        "vmm-lite: {name} {} here now{}",
        if paused { "is" } else { "runs" },
        if paused { ", paused" } else { "" }
    );
    let member = Member::new(vm.clone());
    figures.show(&member);
    let server = Server::new(claim);
    let end = server::serve_until_end(&member, &server, &signals)?;
    // A source that does not know the outcome would ask for ever.
    if let Some(receiver) = moves.upgrade() {
        receiver.wait_over(LAST_WORD);
    }
    report::end(&end, None);
    Ok(ExitCode::from(super::exit::of_end(&end)))
}
