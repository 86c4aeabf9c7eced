//! `vmm-lite protect`.

use super::{
    arguments, identity, protector,
    secured::{Secured, connector_for},
};
use crate::control::arbiter;
use ::arbiter::Arb;
use api::{
    Progress,
    progress::{Event, Pages},
    replication::Protected,
    verb::{self, Commit},
};
use migrate::replication::Settings;
use std::{
    io::{self, IsTerminal},
    os::fd::AsFd,
    process::ExitCode,
    time::Duration,
};
use vmm::{
    identity::signer::Signing,
    migration::{address::Address, connector::Connector},
    replication::protection::{PacketKeeper, Protector},
};

const EXAMPLES: &str = "\
On the other host `vmm-lite standby --listen tcp://HOST:PORT` waits, with the same arbiter. The VM \
is copied to it while it runs; from then on the standby executes all that the VM does, and nothing \
leaves the VM that the standby could not stand behind. When this host dies the standby goes on: \
connections stay open, and no answer that was given is taken back. Repeat it for more standbys.

For a further standby, or a new one after a takeover, the VM keeps the arbiter, --commit, \
--max-lag, --heartbeat and --misses of the first: these options change nothing then. To change \
them, `vmm-lite unprotect` it first.

Who may go on alone is decided by the arbiter, by one compare-and-swap:
  etcd://HOST:PORT[,HOST:PORT…]   an etcd cluster, on other hosts than these two
  file:/DIR                       a directory on storage that both hosts share
docs/arbiter.md says which to choose.

What is protected is the VM: its memory, its connections, its program. What other machines keep \
for it is not.

Examples:
  vmm-lite protect kv tcp://10.9.0.2:7100 --arbiter etcd://10.9.0.9:2379
  vmm-lite protect kv tcp://10.9.0.2:7100 --arbiter file:/shared/locks --heartbeat 5ms
  vmm-lite stats kv                               role, term, lag
  vmm-lite failover kv                            swap roles, before this host goes down";

/// Protect a VM: a standby on another host lives on when this one dies
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,
    /// The standby; with #KEY, the host expected there
    #[arg(value_name = "tcp://HOST:PORT[#KEY]")]
    to: Address,
    #[command(flatten)]
    arbiter: Arbiter,
    #[command(flatten)]
    again: protector::List,
    /// When output may leave: as soon as the standby has `received` what it depends on, or when it
    /// has `executed` that and computed the same
    #[arg(long, default_value = "received", value_parser = super::choices::commit())]
    commit: Commit,
    /// How far the standby may be behind before the VM is slowed down
    #[arg(long, value_name = "TIME", default_value = "50ms", value_parser = arguments::duration)]
    max_lag: Duration,
    /// Time between two heartbeats
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = arguments::duration)]
    heartbeat: Duration,
    /// Number of missed heartbeats after which the other host counts as dead. A false alarm costs
    /// the protection, and nothing else
    #[arg(long, value_name = "N", default_value = "5",
        value_parser = clap::value_parser!(u32).range(1..))]
    misses: u32,
    /// Also protect a program that reads clocks or random numbers of the CPU by itself; its output
    /// then waits until the standby has computed the same (--commit executed)
    #[arg(long)]
    allow_own_clock: bool,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    security: identity::Security,
}

/// Which arbiter, and what happens without it.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct Arbiter {
    /// Who decides which host goes on alone: the same for all hosts of a VM
    #[arg(long, value_name = "etcd://HOST:PORT|file:/DIR")]
    pub arbiter: Arb,
    /// DANGEROUS: go on alone even if the arbiter does not answer. If this host is cut off from
    /// both, two hosts run the VM and answer its clients, and what one of them has acknowledged
    /// is lost. Set it on one host at most, and only where something else makes sure that the
    /// other one is off
    #[arg(long)]
    pub alone_without_arbiter: bool,
}

impl Arbiter {
    /// The settings of a member that does not know its primary yet.
    pub fn settings(&self) -> Settings {
        Settings { alone_without_arbiter: self.alone_without_arbiter, ..Settings::default() }
    }
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or it is not protected by that standby: then it runs on as before.
pub fn run(args: Args) -> super::Result {
    if args.allow_own_clock && args.commit != Commit::Executed {
        return Err(
            "--allow-own-clock needs --commit executed: what the program makes of its own \
            readings may differ at the standby, so its output has to wait until that is known"
                .into(),
        );
    }
    let live = !args.json && io::stderr().is_terminal();
    // While there is no other thread, as it forks.
    let protector = args.again.start(&args.arbiter, &args.security)?;
    if let Some(protector) = &protector {
        protector.named(&args.name)?;
    }
    let request = verb::Protect {
        to: args.to.to_string(),
        commit: args.commit,
        max_lag_ns: Some(api::nanoseconds(args.max_lag)),
        heartbeat_ns: Some(api::nanoseconds(args.heartbeat)),
        misses: Some(args.misses),
        allow_own_clock: args.allow_own_clock,
        alone_without_arbiter: args.arbiter.alone_without_arbiter,
        ..verb::Protect::default()
    };
    let beside = (&args.arbiter.arbiter, protector.as_ref());
    let answer = ask(&args.name, &args.to, request, beside, &args.security, |progress| {
        if live {
            show(&progress);
        }
    });
    if live {
        eprint!("\r\x1b[K");
    }
    let protected = answer?;
    if args.json {
        super::print_json(&protected)?;
    } else {
        print!("{}", text(&args, &protected));
    }
    Ok(ExitCode::SUCCESS)
}

/// Has the VM `name` protected by the standby at `to`. Call it while there is only one thread.
///
/// # Errors
/// As of [`run`].
pub fn ask(
    name: &str,
    to: &Address,
    request: verb::Protect,
    (arb, protector): (&Arb, Option<&Protector>),
    security: &identity::Security,
    progress: impl FnMut(Progress),
) -> Result<Protected, Box<dyn std::error::Error>> {
    let mut secured = Secured::of(security, to, false)?;
    let asking = arbiter::start(arb)?;
    let keeper = PacketKeeper::start()?;
    let connector = Connector::start()?;
    let mut client = super::connect(name)?;
    let addresses = to.look_up()?;
    let connector = connector_for(&mut client, connector, &addresses)?;
    let request = verb::Protect {
        addresses: Some(addresses),
        identity: secured.as_mut().map(|secured| std::mem::take(&mut secured.member)),
        plaintext: secured.is_none(),
        connector: connector.is_some(),
        protector: protector.is_some(),
        ..request
    };
    let mut handed = vec![asking.as_fd(), keeper.socket()];
    handed.extend(protector.map(Protector::socket));
    handed.extend(connector.iter().map(Connector::socket));
    let answer = match secured {
        None => client.call_with(request, &handed, progress),
        Some(Secured { signing: Signing { socket, leash, .. }, .. }) => {
            let sent = client.send(request, &[&[socket.as_fd()][..], &handed].concat());
            drop(socket);
            let answer = sent.and_then(|()| client.answer::<verb::Protect>(progress));
            leash.release();
            answer
        }
    };
    Ok(answer?)
}

fn show(progress: &Progress) {
    match progress {
        Progress::Event(Event::Phase { doing, .. }) => eprint!("\r\x1b[K{doing}"),
        Progress::Pages(Pages { pages, .. }) => eprint!("\r\x1b[K{pages} pages copied"),
        _ => {}
    }
}

fn text(args: &Args, protected: &Protected) -> String {
    let Protected { member, term, took_ns, pause_ns, pages } = protected;
    let time = |ns: &u64| format!("{:.1?}", Duration::from_nanos(*ns));
    format!(
        "{} is protected by {}\n\
         standby              {member}\n\
         term                 {term}\n\
         took                 {}, of which the VM stood for {}\n\
         copied               {pages} pages\n",
        args.name,
        args.to,
        time(took_ns),
        time(pause_ns),
    )
}
