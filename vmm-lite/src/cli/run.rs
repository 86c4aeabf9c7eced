//! `vmm-lite run`.

use super::{arguments, confinement, journal, metrics::Figures, neighbours, report};
use crate::{
    control::{Server, server},
    metrics::At,
};
use api::{Claim, RuntimeDir};
use std::{
    ffi::OsString,
    io::{self, Read},
    net::IpAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use vmm::{
    boot::{Cidr, Image, Parameters},
    devices::console::Console,
    host::confine::{self, Thread},
    kvm::Host,
    replication::journal::Journal,
    replication::protection::Member,
    vm::{Config, NetConfig, Resources, Resume, ResumeReason, Vm, mac_for},
};

const EXAMPLES: &str = "\
Standard input and output are the program's; messages about the VM go to standard error.
The exit code is the program's; `vmm-lite --help` lists the others.

Examples:
  vmm-lite run hello.img
  vmm-lite run hello.img --env RUST_BACKTRACE=1 -- first 'second argument' < input > output
  sudo ip tuntap add tap0 mode tap user $USER && sudo ip link set tap0 up
  sudo ip addr add 10.0.0.1/24 dev tap0
  vmm-lite run kv.img --name kv --memory 16M --tap tap0 --ip 10.0.0.2/24 --gateway 10.0.0.1";

/// Run an image as a VM
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The image, made by `vmm-lite build`
    image: PathBuf,

    /// Name by which the other verbs find the VM [default: the image's name and the process id]
    #[arg(long)]
    name: Option<String>,

    /// The guest's memory; unused memory costs nothing
    #[arg(long, value_name = "SIZE", default_value = "64M", value_parser = arguments::size)]
    memory: u64,

    /// TAP device that connects the guest to the network; it must exist
    #[arg(long, value_name = "DEVICE")]
    tap: Option<String>,

    /// The guest's address and prefix length
    #[arg(long, value_name = "ADDRESS/LENGTH", requires = "tap")]
    ip: Option<Cidr>,

    /// Where the guest sends packets to other networks
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    gateway: Option<IpAddr>,

    /// Name server for the guest; may be repeated
    #[arg(long, value_name = "ADDRESS", requires = "ip")]
    dns: Vec<IpAddr>,

    /// The guest's Ethernet address [default: made from its name and address]
    #[arg(long, value_name = "ADDRESS", requires = "tap", value_parser = arguments::mac)]
    mac: Option<[u8; 6]>,

    /// Environment variable for the program; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = arguments::env)]
    env: Vec<OsString>,

    /// Serve the VM's metrics for Prometheus there, at /metrics
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    metrics: Option<At>,

    #[command(flatten)]
    journal: journal::Args,

    #[command(flatten)]
    confinement: confinement::Args,

    /// Arguments for the program
    #[arg(last = true)]
    args: Vec<OsString>,
}

/// Runs the verb.
///
/// # Errors
/// If the VM cannot be started.
pub fn run(args: Args) -> super::Result {
    let confinement = args.confinement.begin(&[])?;
    let signals = server::catch_signals()?;
    let (journal_dir, how) = (args.journal.journal.clone(), args.journal.how);
    if let Some(dir) = &journal_dir {
        journal::check_jail(confinement.jails_files(), dir)?;
    }
    let host = Host::open()?;
    let image = Image::open(&args.image)?;
    let claim = claim(args.name.as_deref(), &args.image)?;
    if let Some(ip) = args.ip {
        neighbours::warn(claim.name(), &[ip.address]);
    }
    let console = Console::new(Some(io::stdout().as_fd().try_clone_to_owned()?));
    let resources = Resources::on(host, args.tap.as_deref())?;
    let figures = Figures::serve_confined(args.metrics.as_ref(), &confinement, args.memory)?;
    let vm = Vm::boot_with(&resources, &config(args, claim.name()), &image, console)?;
    drop(resources);
    let member = Member::new(vm.clone());
    figures.show(&member);
    let server = Server::new(claim);
    fail_point!("run.booting");
    let mut held = vm.hold()?;
    if confinement.allow_spoofing {
        held.allow_spoofing();
    }
    held.limit(&confinement.rates);
    let journal = journal_dir.as_deref().map(|dir| Journal::begin(&mut held, dir, how.options()));
    let journal = journal.transpose()?;
    held.resume(Resume { reason: ResumeReason::Boot, away: Duration::ZERO })?;
    // The guest announces itself, but usually before the TAP device carries packets.
    vm.announce_when_up();
    if let Some(journal) = &journal {
        how.make_snapshots(journal, &vm)?;
    }
    // Takes a third of a millisecond, which the guest need not wait for: this thread reads nothing
    // from the guest, and has served no client yet.
    confine::enter(Thread::Main)?;
    confinement.watch()?;
    feed_standard_input(&vm)?;
    let end = server::serve_until_end(&member, &server, &signals)?;
    journal::finish(journal);
    report::end(&end, Some(&image));
    Ok(ExitCode::from(super::exit::of_end(&end)))
}

fn config(args: Args, name: &str) -> Config {
    let ip = args.ip.map(|ip| ip.to_string()).unwrap_or_default();
    let mac = args.mac.unwrap_or_else(|| mac_for(name, &ip));
    Config {
        memory: args.memory,
        nets: args.tap.map(|tap| NetConfig { tap, mac }).into_iter().collect(),
        parameters: Parameters {
            name: name.into(),
            ip: args.ip,
            gateway: args.gateway,
            dns: args.dns,
            env: args.env,
            args: args.args,
        },
    }
}

fn claim(name: Option<&str>, image: &Path) -> Result<Claim, api::Error> {
    let dir = RuntimeDir::open()?;
    match name {
        Some(name) => dir.claim(name),
        None => dir.claim(&made_up_name(image, std::process::id())),
    }
}

/// Makes a valid VM name from the image's name.
fn made_up_name(image: &Path, pid: u32) -> String {
    let stem = image.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let stem: String = stem.chars().filter(|c| fine(*c)).take(40).collect();
    match stem.trim_start_matches(['.', '-']) {
        "" => format!("vm-{pid}"),
        stem => format!("{stem}-{pid}"),
    }
}

/// Starts to feed this process's standard input to the guest.
///
/// # Errors
/// If the host cannot start a thread for it.
pub fn feed_standard_input(vm: &Vm) -> io::Result<()> {
    let vm = vm.clone();
    let feed = move || {
        if let Err(e) = confine::enter(Thread::Stdin) {
            tracing::error!("standard input is not read: {}", vmm::host::with_causes(&e));
            return;
        }
        let mut buffer = [0; 4096];
        loop {
            match io::stdin().lock().read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => vm.console_input(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    tracing::debug!("standard input cannot be read: {e}");
                    break;
                }
            }
        }
        vm.console_eof();
    };
    let thread = std::thread::Builder::new().name(Thread::Stdin.name().into());
    thread.stack_size(128 << 10).spawn(feed).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_image_has_a_name() {
        assert_eq!(made_up_name(Path::new("/x/kv.img"), 7), "kv-7");
        assert_eq!(made_up_name(Path::new("/x/.hidden dir/-ä b.img"), 7), "b-7");
        assert_eq!(made_up_name(Path::new("/x/ä.img"), 7), "vm-7");
    }
}
