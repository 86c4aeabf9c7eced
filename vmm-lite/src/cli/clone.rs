//! One clone: a process that `fork` and `restore --count` start.

use super::{confinement::Confinement, metrics::Figures, network::Place, report};
use crate::{
    control::{Server, server},
    metrics::At,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, FromRawFd, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};
use vmm::{
    devices::console::Console,
    host::confine::files,
    kvm::Host,
    replication::protection::Member,
    snapshot::{GuestClock, clones, start::Opened},
    vm::{ResumeReason, Vm, mac_text},
};

/// How long the vCPU may take to enter the guest.
const ENTRY: Duration = Duration::from_secs(5);

/// Run as a clone (used by vmm-lite itself)
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The orders, as JSON
    orders: String,
}

/// The orders for a clone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Descriptor of the memory it maps.
    pub memory: i32,
    /// Descriptor of manifest and state.
    pub seed: i32,
    /// Descriptor on which the clone reports that it runs; closed when it ends.
    pub ready: i32,
    /// Whether it is a fork of a running VM, rather than restored from a file.
    pub forked: bool,
    /// How its monotonic clock continues.
    pub clock: GuestClock,
    /// Whether it outlives the process that started it.
    pub detach: bool,
    /// The process id of that process.
    pub parent: u32,
    /// Its confinement.
    pub confinement: Confinement,
    /// Its name and network.
    pub place: Place,
    /// Where its metrics are served.
    pub metrics: Option<String>,
}

/// What a VM reports when it runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Running {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its Ethernet address.
    pub mac: Option<String>,
    /// Its address.
    pub ip: Option<String>,
    /// Its TAP device.
    pub tap: Option<String>,
    /// When its first instruction ran, in ns of the host's monotonic clock.
    pub entered_ns: u64,
    /// Why it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The descriptor on which a VM reports that it runs.
#[derive(Debug)]
pub struct Ready(File);

impl Ready {
    /// Uses a descriptor that this process inherited.
    ///
    /// # Errors
    /// If it is not open.
    pub fn on(fd: i32) -> io::Result<Self> {
        Ok(Self(File::from(inherited(fd)?)))
    }

    /// Reports that `vm` runs.
    ///
    /// # Errors
    /// If it does not run, or the reader is gone.
    pub fn tell(&mut self, vm: &Vm, name: &str) -> Result<(), Box<dyn std::error::Error>> {
        let entered = vm.entered(ENTRY).ok_or("the VM does not run")?;
        let net = vm.identity().nets.first();
        let ago = Instant::now().saturating_duration_since(entered);
        let running = Running {
            name: name.into(),
            pid: std::process::id(),
            mac: net.map(|net| mac_text(net.mac)),
            ip: net.and_then(|net| net.ip).map(|ip| ip.to_string()),
            entered_ns: (monotonic()?.saturating_sub(ago)).as_nanos() as u64,
            ..Running::default()
        };
        Ok(self.say(&running)?)
    }

    fn say(&mut self, what: &Running) -> io::Result<()> {
        let line = serde_json::to_string(what)? + "\n";
        self.0.write_all(line.as_bytes())
    }
}

fn monotonic() -> io::Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?.into())
}

/// A descriptor that the parent left open for this process.
fn inherited(fd: i32) -> io::Result<OwnedFd> {
    if fd <= 2 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: fcntl only inspects the number, whatever it refers to, and sets close-on-exec.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and as it was inherited nothing in this process owns it; each descriptor
    // is taken once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs the verb.
///
/// # Errors
/// If the clone cannot be started; the parent receives the error as well.
pub fn run(args: Args) -> super::Result {
    let orders: Orders = serde_json::from_str(&args.orders)?;
    files::close_inherited(&[orders.memory, orders.seed, orders.ready])?;
    // It was started through a link, whose name would otherwise appear in process lists.
    nix::sys::prctl::set_name(c"vmm-lite")?;
    let mut ready = Ready::on(orders.ready)?;
    let signals = server::catch_signals()?;
    if orders.detach {
        // Input at the terminal is not for it.
        nix::unistd::setsid()?;
    }
    let started = start(&orders);
    let (member, server, _figures) = match started {
        Ok(started) => started,
        Err(e) => {
            let error = Some(vmm::host::with_causes(&*e));
            let _ = ready.say(&Running { error, ..Running::default() });
            return Err(e);
        }
    };
    ready.tell(member.vm(), server.name())?;
    orders.confinement.watch()?;
    let end = server::serve_until_end(&member, &server, &signals)?;
    report::end(&end, None);
    Ok(ExitCode::from(super::exit::of_end(&end)))
}

/// The clone, and what serves it: the control socket, and the metrics endpoint.
type Started = (Member, Server, Figures);

fn start(orders: &Orders) -> Result<Started, Box<dyn std::error::Error>> {
    let memory = clones::Memory::of(File::from(inherited(orders.memory)?))?;
    let guest = clones::seed(&File::from(inherited(orders.seed)?))?;
    let console = Console::new(Some(io::stdout().as_fd().try_clone_to_owned()?));
    let Place { change, tap } = &orders.place;
    let size = guest.manifest.identity.memory_size;
    let claim = super::restore::name_of(&guest, change)?;
    let mut opened = Opened::new(Host::open()?, guest, change, tap.as_deref())?;
    opened.allow_spoofing(orders.confinement.allow_spoofing);
    opened.limit(orders.confinement.rates);
    let at = orders.metrics.as_deref().map(str::parse::<At>).transpose()?;
    let figures = Figures::serve_confined(at.as_ref(), &orders.confinement, size)?;
    if !orders.detach {
        end_with(orders.parent)?;
    }
    let reason = if orders.forked { ResumeReason::Forked } else { ResumeReason::Restored };
    let vm = memory.start(opened, reason, orders.clock, console)?;
    let member = Member::new(vm);
    figures.show(&member);
    Ok((member, Server::new(claim), figures))
}

/// Makes the kernel end this process when its parent ends. A change of the user would undo that, so
/// call this after it.
fn end_with(parent: u32) -> Result<(), Box<dyn std::error::Error>> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGTERM)?;
    if nix::unistd::getppid().as_raw().cast_unsigned() != parent {
        return Err("the process that started this one has ended".into());
    }
    Ok(())
}
