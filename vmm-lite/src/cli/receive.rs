//! `vmm-lite receive`.

use super::{arguments, confinement, identity, metrics::Figures, report};
use crate::{
    control::{
        Server,
        server::{self, Signals},
    },
    metrics::At,
};
use api::{Claim, RuntimeDir};
use std::{
    io,
    net::TcpListener,
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver as Queue, channel},
    },
    time::Duration,
};
use vmm::{
    host::{
        confine::{self, Thread},
        poll::wait_readable,
    },
    identity::signer,
    kvm,
    migration::{
        address::Address,
        credentials::{self, PLAINTEXT_WARNING},
        destination::{NameError, Names, Offering, Receiver},
        listener::{self, AccessPolicy},
    },
    vm::{Resources, Vm, VmPhase},
};
use vmm_lite_interface::layout::MEMORY_MAX;

/// How often the waiting process checks for a signal. Arrivals and connections wake it at once.
const LOOK: Duration = Duration::from_millis(200);

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
    /// Address to listen on
    #[arg(long, value_name = "tcp://HOST:PORT")]
    listen: Address,
    /// TAP device for a VM that has a network; it must exist
    #[arg(long, value_name = "DEVICE")]
    tap: Option<String>,
    /// Name for it here, claimed at once [default: the VM's]
    #[arg(long)]
    name: Option<String>,
    /// Refuse a VM with more memory [default: what the host has available at the start]
    #[arg(long, value_name = "SIZE", value_parser = arguments::size)]
    memory_max: Option<u64>,
    /// Declare a VM lost if post-copy pages are missing and its source has been silent for this
    /// long. Without a limit it waits, as a dead host and a cut link look the same from here:
    /// `vmm-lite stop` ends it [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    lost_after: Option<Duration>,
    /// Serve the VM's metrics for Prometheus there, at /metrics
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    metrics: Option<At>,
    #[command(flatten)]
    security: identity::Security,
    #[command(flatten)]
    confinement: confinement::Args,
}

/// Runs the verb.
///
/// # Errors
/// If this process cannot receive.
pub fn run(args: Args) -> super::Result {
    if args.listen.key().is_some() {
        return Err(
            "this host proves its own key, and which others may send is said by `vmm-lite \
            identity trust`: leave #KEY out of --listen"
                .into(),
        );
    }
    let confinement = args.confinement.begin(&[])?;
    if confinement.opens_nothing() && args.name.is_none() {
        return Err(
            "with --user or --jail, give the VM's name here too (--name): only now can this \
            process take one in this user's directory"
                .into(),
        );
    }
    // While there is one thread, and before anything is open that the signer does not need.
    let signing = match args.security.dir() {
        Some(dir) => {
            let starting = signer::start(&dir, signer::Side::Destination, confinement.mode())?;
            Some((dir, starting))
        }
        None => None,
    };
    let signals = server::catch_signals()?;
    let dir = RuntimeDir::open()?;
    let tap = args.tap.as_deref();
    // Another user may lack the rights to open these when a VM arrives.
    let resources = if confinement.opens_nothing() {
        Resources::open(tap)?
    } else {
        Resources::with_taps_later(tap)?
    };
    // Before a source can hand its VM over to a host that cannot run it.
    resources.host().self_test()?;
    let fault_cost = match resources.host().fault_cost() {
        Ok(cost) => Some(cost),
        Err(e @ kvm::Error::Lacks(_)) => {
            tracing::info!("brownouts are not known: {e}");
            None
        }
        Err(e) => return Err(e.into()),
    };
    let memory_max = args.memory_max.unwrap_or_else(memory_there_is);
    let naming = Arc::new(Naming::new(dir, args.name.as_deref())?);
    let offering = Offering {
        names: Arc::clone(&naming) as Arc<dyn Names>,
        resources,
        memory_max,
        output: Some(io::stdout().as_fd().try_clone_to_owned()?),
        fault_cost,
        lost_after: args.lost_after,
        allow_spoofing: confinement.allow_spoofing,
        rates: confinement.rates,
    };
    // The signer has read its key meanwhile.
    let policy = match signing {
        Some((dir, starting)) => {
            let signing = starting.finish()?;
            let certificate = signing.certificate.clone();
            let key = signing.into_key(signer::Side::Destination);
            let credentials = credentials::for_receiving(&dir, certificate, key)?;
            // Another user may lack the rights to read the directory.
            AccessPolicy::tls(credentials, (!confinement.opens_nothing()).then_some(dir))
        }
        None => {
            eprintln!("vmm-lite: warning: {PLAINTEXT_WARNING}");
            AccessPolicy::Plaintext
        }
    };
    let listener = listen(&args.listen)?;
    let figures = Figures::serve_confined(args.metrics.as_ref(), &confinement, memory_max)?;
    let (arrived, arrivals) = channel();
    let receiver = Arc::new(Receiver::new(offering, arrived)?);
    eprintln!("vmm-lite: listening on {}", args.listen);
    // The thread that serves the source owns it, as long as there is a source to serve.
    let moves = Arc::downgrade(&receiver);
    listener::serve(listener, receiver, policy)?;
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
    figures.show(&vm);
    let server = Server::new(claim);
    let end = server::serve_until_end(&vm, &server, &signals)?;
    // A source that does not know the outcome would ask for ever.
    if let Some(receiver) = moves.upgrade() {
        receiver.wait_over(LAST_WORD);
    }
    report::end(&end, None);
    Ok(ExitCode::from(super::exit::of_end(&end)))
}

/// Memory that the host has available now, if it tells, and at most what a VM can have.
fn memory_there_is() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(MEMORY_MAX, |kib| MEMORY_MAX.min(kib << 10))
}

fn listen(at: &Address) -> Result<TcpListener, Box<dyn std::error::Error>> {
    let addresses = at.look_up()?;
    TcpListener::bind(&addresses[..]).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; choose another port",
            io::ErrorKind::AddrNotAvailable => "this host has no such address",
            io::ErrorKind::PermissionDenied => "only root may use ports below 1024",
            _ => "the host does not allow it",
        };
        format!("cannot listen on {at}: {hint}: {e}").into()
    })
}

/// Waits for a VM; `None` if a signal ends the wait.
fn wait(arrivals: &Queue<Vm>, signals: &Signals) -> io::Result<Option<Vm>> {
    loop {
        if let Ok(vm) = arrivals.recv_timeout(LOOK) {
            return Ok(Some(vm));
        }
        if wait_readable(signals.fd(), Duration::ZERO)? && signals.take().is_some() {
            return Ok(None);
        }
    }
}

/// The name of the VM that arrives.
#[derive(Debug)]
struct Naming {
    dir: RuntimeDir,
    /// Claimed at the start, for any VM that arrives.
    fixed: bool,
    claim: Mutex<Option<Claim>>,
}

impl Naming {
    fn new(dir: RuntimeDir, name: Option<&str>) -> Result<Self, api::Error> {
        let claim = name.map(|name| dir.reserve(name)).transpose()?;
        Ok(Self { dir, fixed: claim.is_some(), claim: Mutex::new(claim) })
    }

    fn claim(&self) -> MutexGuard<'_, Option<Claim>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The claimed name, once the VM runs.
    fn take(&self) -> Option<Claim> {
        self.claim().take()
    }
}

impl Names for Naming {
    fn reserve(&self, name: &str) -> Result<String, NameError> {
        let mut claim = self.claim();
        if !self.fixed {
            *claim = Some(self.dir.reserve(name)?);
        }
        let name = claim.as_ref().map(|claim| claim.name().to_owned());
        name.ok_or_else(|| "an earlier VM has the name".into())
    }

    fn release(&self) {
        if !self.fixed {
            *self.claim() = None;
        }
    }

    fn open(&self) -> Result<(), NameError> {
        self.claim().as_ref().map_or(Ok(()), Claim::listen).map_err(Into::into)
    }
}
