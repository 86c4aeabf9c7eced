//! `vmm-lite fork`.

use super::{
    call_off::CallOff,
    clone::{Orders, Running},
    confinement::{self, Confinement},
    network::{self, Place},
    waiting::Wait,
};
use crate::{
    control::server::{self, Signals},
    metrics::{self, At},
};
use api::{ForkReport, verb};
use nix::{
    fcntl::OFlag,
    sys::signal::{Signal, kill},
    unistd::{Pid, pipe2},
};
use serde_json::json;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{Child, Command, ExitCode, Stdio},
    time::Instant,
};
use vmm::{
    kvm::Host,
    snapshot::{GuestClock, clones::Template},
    vm::ResumeReason,
};

/// Most bytes of a clone's report.
const LINE_MAX: u64 = 64 << 10;

const EXAMPLES: &str = "\
The VM is paused for about as long as in a move, and keeps running. The clones are processes of \
their own, called NAME-1, NAME-2 and so on; they share all memory that they have
not written to. They end with this process, unless --detach is given. Each has random numbers \
of its own, and its resume hooks tell its program.
Each is confined as `vmm-lite run` confines a VM, with the user named here, which may differ from \
that of the VM.

A VM with a network needs a TAP device for each clone (--tap tap%d means tap1, tap2 and so \
on) and addresses: --ip is the first one's, and the others count up.
Ethernet addresses are made from name and address. A guest with a new address closes \
the connections that it had.

Examples:
  vmm-lite fork kv --count 20 --tap tap%d --ip 10.0.0.101/24
  vmm-lite fork kv --count 2 --tap tap1 --tap tap7 --keep-ip        each on a network of its own
  vmm-lite fork worker --count 100 --detach --json | jq -r .clones[].name
  vmm-lite fork worker --count 100 --first 101 --detach             a hundred more
  vmm-lite fork worker --count 20 --metrics unix:/run/worker-%d.metrics
  sudo vmm-lite fork kv --user nobody --tap tap1 --ip 10.0.0.101/24";

/// Start clones of a running VM
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the VM
    name: String,

    /// Number of clones
    #[arg(long, value_name = "N", default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,

    /// Prefix of their names [default: the VM's]
    #[arg(long, value_name = "NAME")]
    prefix: Option<String>,

    #[command(flatten)]
    wait: Wait,

    #[command(flatten)]
    many: Many,

    #[command(flatten)]
    network: network::Network,

    #[command(flatten)]
    confinement: confinement::Args,
}

/// Options for several VMs.
#[derive(clap::Args, Clone, Debug)]
pub struct Many {
    /// Number of the first of several
    #[arg(long, value_name = "N", default_value = "1")]
    pub first: u32,

    /// End when several VMs run, and leave them running
    #[arg(long)]
    pub detach: bool,

    /// Print one JSON object about several VMs once they run; times in nanoseconds
    #[arg(long)]
    pub json: bool,

    /// Serve the VM's metrics for Prometheus there, at /metrics. For several VMs: unix:PATH, with
    /// %d for the VM's number
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    pub metrics: Option<At>,
}

impl Many {
    /// Where the metrics of each of `count` VMs are served, as text.
    ///
    /// # Errors
    /// If they would all be served at one place.
    pub fn metrics(&self, count: usize) -> Result<Vec<Option<String>>, metrics::Error> {
        let Some(at) = &self.metrics else { return Ok(vec![None; count]) };
        let place = |n| at.numbered(self.first.saturating_add(n)).map(|at| Some(at.to_string()));
        match count {
            1 if !at.to_string().contains("%d") => Ok(vec![Some(at.to_string())]),
            _ => (0..count as u32).map(place).collect(),
        }
    }
}

/// Runs the verb.
///
/// # Errors
/// If there is no such VM, or a clone cannot be started: then no clone is left.
pub fn run(args: Args) -> super::Result {
    let confinement = args.confinement.begin(&[])?;
    let signals = server::catch_signals()?;
    let call_off = CallOff::on(server::catch_signals()?, &args.name, || {})?;
    let mut client = super::connect(&args.name)?;
    // Report errors in the options before the VM is disturbed.
    args.many.metrics(args.count as usize)?;
    // Once for all clones, and before the VM is disturbed.
    Host::open()?.self_test()?;
    let template = Template::new()?;
    let files = [template.memory().as_fd(), template.seed().as_fd()];
    let watch = super::snapshot::watch(args.many.json);
    let request = verb::Fork { timeout_ns: args.wait.timeout_ns() };
    call_off.asked(&client)?;
    let report = match client.call_with(request, &files, watch) {
        Err(e) => return call_off.failed(e),
        Ok(report) => report,
    };
    drop(call_off);
    template.seal()?;
    let guest = template.guest()?;
    let wanted = network::Wanted {
        name: args.prefix.as_deref().unwrap_or(&guest.manifest.identity.name),
        numbers: Some((args.many.first, args.count)),
        beside: true,
    };
    let places = args.network.places(&guest.manifest.identity, wanted)?;
    args.network.check_neighbours(&guest.manifest.identity, &places)?;
    let how =
        How { reason: ResumeReason::Forked, clock: GuestClock::Jump, confinement, many: args.many };
    let clones = Clones::start(&template, &places, &how)?;
    drop(template);
    clones.go_on(Some(&report), &how.many, &signals)
}

/// How clones are started.
#[derive(Clone, Debug)]
pub struct How {
    /// The resume reason that they are given.
    pub reason: ResumeReason,
    /// How their monotonic clocks continue.
    pub clock: GuestClock,
    /// The confinement of each.
    pub confinement: Confinement,
    /// Whether this process detaches, and how it reports them.
    pub many: Many,
}

/// Starts VMs from a template and stays with them, unless they are detached.
///
/// # Errors
/// If one cannot be started: then none is left.
pub fn run_all(template: Template, places: &[Place], how: How, signals: &Signals) -> super::Result {
    let clones = Clones::start(&template, places, &how)?;
    // The memory is freed with its last user.
    drop(template);
    clones.go_on(None, &how.many, signals)
}

/// A clone's process.
struct Process {
    child: Child,
    /// The clone's report that it runs; end of file when it ends.
    ready: BufReader<File>,
}

/// Clones that run or are starting. Dropping this ends them.
struct Clones {
    processes: Vec<Process>,
    running: Vec<Running>,
    took_ns: u64,
}

impl Clones {
    fn start(
        template: &Template,
        places: &[Place],
        how: &How,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let begun = Instant::now();
        let mut clones = Self { processes: Vec::new(), running: Vec::new(), took_ns: 0 };
        for (place, metrics) in places.iter().zip(how.many.metrics(places.len())?) {
            let (ready, theirs) = pipe2(OFlag::O_CLOEXEC)?;
            let orders = Orders {
                memory: template.memory().as_raw_fd(),
                seed: template.seed().as_raw_fd(),
                ready: theirs.as_raw_fd(),
                forked: how.reason == ResumeReason::Forked,
                clock: how.clock,
                detach: how.many.detach,
                parent: std::process::id(),
                confinement: how.confinement.clone(),
                place: place.clone(),
                metrics,
            };
            let child = spawn(&orders, theirs)
                .map_err(|e| format!("cannot start a process for a clone: {e}"))?;
            clones.processes.push(Process { child, ready: BufReader::new(File::from(ready)) });
        }
        for (process, place) in clones.processes.iter_mut().zip(places) {
            let name = place.change.name.clone().unwrap_or_default();
            let mut line = String::new();
            // It runs a guest by then, so the length of its report is not trusted.
            process.ready.by_ref().take(LINE_MAX).read_line(&mut line)?;
            let mut running: Running =
                serde_json::from_str(&line).map_err(|_| format!("{name} ended before it ran"))?;
            if let Some(error) = running.error {
                return Err(format!("{name} cannot run, so no clone was started: {error}").into());
            }
            running.tap.clone_from(&place.tap);
            clones.running.push(running);
        }
        clones.took_ns = begun.elapsed().as_nanos() as u64;
        Ok(clones)
    }

    /// Reports that they run, and waits for them to end, unless they are detached.
    fn go_on(mut self, fork: Option<&ForkReport>, many: &Many, signals: &Signals) -> super::Result {
        if many.json {
            let all = json!({ "clones": self.running, "started_ns": self.took_ns, "fork": fork });
            println!("{all}");
        } else {
            print!("{}", fork.map(super::snapshot::pause_table).unwrap_or_default());
            let ms = self.took_ns as f64 / 1e6;
            println!("{} VMs run, started in {ms:.1} ms", self.running.len());
            for vm in &self.running {
                let ip = vm.ip.as_deref().unwrap_or("-");
                println!("{:<24} pid {:<8} {ip}", vm.name, vm.pid);
            }
        }
        if many.detach {
            self.processes.clear();
            return Ok(ExitCode::SUCCESS);
        }
        let mut code = 0;
        while !self.processes.is_empty() {
            if self.wait(signals)? {
                // The second signal: they have had time to end.
                code = 128 + libc::SIGINT as u8;
                self.end();
            }
            let mut i = 0;
            while i < self.processes.len() {
                match self.processes[i].child.try_wait()? {
                    Some(status) => {
                        if !status.success() && code == 0 {
                            code = 1;
                        }
                        self.processes.swap_remove(i);
                    }
                    None => i += 1,
                }
            }
        }
        Ok(ExitCode::from(code))
    }

    /// Waits until one has ended; `true` if a signal ended the wait.
    fn wait(&mut self, signals: &Signals) -> std::io::Result<bool> {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let ready = self.processes.iter().map(|p| entry(p.ready.get_ref().as_raw_fd()));
        let mut fds: Vec<_> = std::iter::once(entry(signals.fd())).chain(ready).collect();
        // SAFETY: the pointer and the length are those of one slice of valid entries.
        unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, -1) };
        for (process, fd) in self.processes.iter_mut().zip(&fds[1..]) {
            if fd.revents != 0 {
                // The descriptor is the last that it closes.
                process.child.wait()?;
            }
        }
        Ok(fds[0].revents != 0 && signals.take().is_some())
    }

    fn end(&self) {
        for process in &self.processes {
            // The child has not been waited for, so the process id is still its own.
            let _ = kill(Pid::from_raw(process.child.id().cast_signed()), Signal::SIGTERM);
        }
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        self.end();
        for process in &mut self.processes {
            let _ = process.child.wait();
        }
    }
}

fn spawn(orders: &Orders, ready: OwnedFd) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("clone").arg(serde_json::to_string(orders)?).stdin(Stdio::null());
    if orders.detach {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
    // Only this child inherits it: the next is started after it is closed here.
    nix::fcntl::fcntl(&ready, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))?;
    command.spawn()
}
