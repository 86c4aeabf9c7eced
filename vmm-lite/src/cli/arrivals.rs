//! What the verbs have in common that wait for a VM of another host: `receive` and `standby`.

use super::{
    arguments,
    confinement::{self, Confinement},
    identity,
    metrics::Figures,
};
use crate::{
    control::server::{self, Signals},
    metrics::At,
};
use api::{Claim, RuntimeDir};
use std::{
    io,
    net::TcpListener,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Receiver as Queue},
    time::Duration,
};
use vmm::{
    host::poll::wait_readable,
    identity::signer,
    migration::{
        address::Address,
        credentials::{self, PLAINTEXT_WARNING},
        destination::{NameError, Names, Offering},
        listener::AccessPolicy,
    },
    vm::Resources,
};
use vmm_lite_interface::layout::MEMORY_MAX;

/// How often the waiting process checks for a signal. Arrivals and connections wake it at once.
const LOOK: Duration = Duration::from_millis(200);

/// Options of these verbs.
#[derive(clap::Args, Debug)]
#[group(skip)]
pub struct Args {
    /// Address to listen on
    #[arg(long, value_name = "tcp://HOST:PORT")]
    pub listen: Address,
    /// TAP device for a VM that has a network; it must exist
    #[arg(long, value_name = "DEVICE")]
    tap: Option<String>,
    /// Name for it here, claimed at once [default: the VM's]
    #[arg(long)]
    name: Option<String>,
    /// Refuse a VM with more memory [default: what the host has available at the start]
    #[arg(long, value_name = "SIZE", value_parser = arguments::size)]
    memory_max: Option<u64>,
    /// Serve the VM's metrics for Prometheus there, at /metrics
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    metrics: Option<At>,
    #[command(flatten)]
    security: identity::Security,
    #[command(flatten)]
    confinement: confinement::Args,
}

/// A process that is ready to listen, and not confined yet.
pub struct Ready {
    pub confinement: Confinement,
    pub signals: Signals,
    pub naming: Arc<Naming>,
    /// What a VM gets; without what only some verbs know.
    pub offering: Offering,
    pub policy: AccessPolicy,
    pub listener: TcpListener,
    metrics: Option<At>,
}

impl Args {
    /// Opens and checks what this process needs. `beside` starts other processes first, while there
    /// is one thread, and before anything is open that they do not need.
    ///
    /// # Errors
    /// If the process cannot receive.
    pub fn open<T>(
        self,
        beside: impl FnOnce(&identity::Security) -> Result<T, Box<dyn std::error::Error>>,
    ) -> Result<(Ready, T), Box<dyn std::error::Error>> {
        if self.listen.key().is_some() {
            return Err("this host proves its own key, and which others may send is said by \
                `vmm-lite identity trust`: leave #KEY out of --listen"
                .into());
        }
        let confinement = self.confinement.begin(&[])?;
        if confinement.opens_nothing() && self.name.is_none() {
            return Err("with --user or --jail, give the VM's name here too (--name): only now \
                can this process take one in this user's directory"
                .into());
        }
        let besides = beside(&self.security)?;
        let signing = match self.security.dir() {
            Some(dir) => {
                let starting = signer::start(&dir, signer::Side::Destination, confinement.mode())?;
                Some((dir, starting))
            }
            None => None,
        };
        let signals = server::catch_signals()?;
        let dir = RuntimeDir::open()?;
        let tap = self.tap.as_deref();
        // Another user may lack the rights to open these when a VM arrives.
        let resources = if confinement.opens_nothing() {
            Resources::open(tap)?
        } else {
            Resources::with_taps_later(tap)?
        };
        // Before a source can hand its VM over to a host that cannot run it.
        resources.host().self_test()?;
        let naming = Arc::new(Naming::new(dir, self.name.as_deref())?);
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
        let offering = Offering {
            names: Arc::clone(&naming) as Arc<dyn Names>,
            resources,
            memory_max: self.memory_max.unwrap_or_else(memory_there_is),
            output: Some(io::stdout().as_fd().try_clone_to_owned()?),
            fault_cost: None,
            lost_after: None,
            allow_spoofing: confinement.allow_spoofing,
            rates: confinement.rates,
        };
        let ready = Ready {
            confinement,
            signals,
            naming,
            offering,
            policy,
            listener: listen(&self.listen)?,
            metrics: self.metrics,
        };
        Ok((ready, besides))
    }
}

impl Ready {
    /// Confines the process, and serves the metrics.
    ///
    /// # Errors
    /// The process must then not continue.
    pub fn confine(&self) -> Result<Figures, Box<dyn std::error::Error>> {
        Figures::serve_confined(self.metrics.as_ref(), &self.confinement, self.offering.memory_max)
    }
}

/// Waits for what arrives; `None` if a signal ends the wait.
///
/// # Errors
/// The host's.
pub fn wait<T>(arrivals: &Queue<T>, signals: &Signals) -> io::Result<Option<T>> {
    loop {
        if let Ok(arrived) = arrivals.recv_timeout(LOOK) {
            return Ok(Some(arrived));
        }
        if wait_readable(signals.fd(), Duration::ZERO)? && signals.take().is_some() {
            return Ok(None);
        }
    }
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

/// The name of the VM that arrives.
#[derive(Debug)]
pub struct Naming {
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
    pub fn take(&self) -> Option<Claim> {
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
