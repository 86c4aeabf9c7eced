//! `vmm-lite standby`.

use super::{
    arrivals::{self, Ready, wait},
    report,
};
use crate::control::{
    Server,
    arbiter::{self, Asking},
    server,
};
use std::{
    process::ExitCode,
    sync::{Arc, mpsc::channel},
};
use vmm::{
    host::confine::{self, Thread},
    migration::listener,
    replication::protection::{Beside, PacketKeeper, Protector, Seeded, StandbyReceiver},
};

const EXAMPLES: &str = "\
The process waits for a VM that `vmm-lite protect` copies to it, and executes what the VM does: \
when the VM's host dies, it goes on with it, and takes back nothing that was answered. Before it \
does it asks the arbiter, so that never two hosts run the VM; docs/arbiter.md says how to choose \
one. Both hosts need the same model of CPU, and must trust each other: see `vmm-lite identity`.

The process ends as the VM ends, with exit code 0 when the primary ends the protection, and 125 \
if it lost its place: then start another one.

A VM that runs here after its host's death has no standby any more. `protect` gives it one, by \
hand, or --standby, on its own.

Examples:
  vmm-lite standby --listen tcp://10.9.0.2:7100 --tap tap0 --arbiter etcd://10.9.0.9:2379
  vmm-lite standby --listen tcp://10.9.0.2:7100 --tap tap0 --arbiter file:/shared/locks
  vmm-lite stats kv                               on this host: how far it is";

/// Wait for a VM to protect, and go on with it when its host dies
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    arrivals: arrivals::Args,
    #[command(flatten)]
    arbiter: super::protect::Arbiter,
    #[command(flatten)]
    again: super::protector::List,
}

/// Runs the verb.
///
/// # Errors
/// If this process cannot stand by.
pub fn run(args: Args) -> super::Result {
    let (listen, arb) = (args.arrivals.listen.clone(), args.arbiter.arbiter.clone());
    let settings = args.arbiter.settings();
    let (ready, (asking, keeper, protector)) = args.arrivals.open(|security| {
        let protector = args.again.start(&args.arbiter, security)?;
        Ok((arbiter::start(&arb)?, PacketKeeper::start()?, protector))
    })?;
    let figures = ready.confine()?;
    let Ready { confinement, signals, naming, offering, policy, listener, .. } = ready;
    let (seeded, arrivals) = channel();
    // It is told the VM's name when there is one.
    let naming_it = protector.as_ref().map(Protector::try_clone).transpose()?;
    let arbiter = Box::new(Asking::new(asking));
    let beside = Beside { arbiter, keeper: Some(keeper), protector };
    let receiver = Arc::new(StandbyReceiver::new(offering, beside, settings, seeded)?);
    eprintln!("vmm-lite: standby, listening on {listen}");
    listener::serve(listener, receiver, policy)?;
    confine::enter(Thread::Main)?;
    confinement.watch()?;
    let Some(Seeded { member, from, .. }) = wait(&arrivals, &signals)? else {
        return Ok(ExitCode::from(128 + libc::SIGTERM as u8));
    };
    let claim = naming.take().ok_or("the VM that was seeded has no name here")?;
    eprintln!("vmm-lite: {} stands by for {from}", claim.name());
    if let Some(protector) = naming_it {
        protector.named(claim.name())?;
    }
    figures.show(&member);
    let server = Server::new(claim);
    let end = server::serve_until_end(&member, &server, &signals)?;
    if member.was_dismissed() {
        eprintln!("vmm-lite: {}: its primary has ended the protection", server.name());
        return Ok(ExitCode::SUCCESS);
    }
    report::end(&end, None);
    Ok(ExitCode::from(super::exit::of_end(&end)))
}
