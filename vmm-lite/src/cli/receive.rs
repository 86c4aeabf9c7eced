//! `vmm-lite receive`.

use super::{arguments, identity, report};
use crate::{
    control::{
        Server,
        server::{self, Signals},
    },
    kvm::Host,
    migration::{
        address::Address,
        credentials::PLAINTEXT_WARNING,
        destination::{Arrived, Offering, Receiver},
        listener::{self, Door},
        poll::wait_readable,
    },
};
use std::{
    io,
    net::TcpListener,
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc,
        mpsc::{Receiver as Queue, channel},
    },
    time::Duration,
};
use vmm_lite_interface::layout::MEMORY_MAX;

/// How often the waiting process looks for a signal. Arrivals and connections wake it at once.
const LOOK: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
The process waits for one VM, becomes it, and ends as it ends. A move that fails leaves it waiting for the next. Only hosts that
this one trusts may send: see `vmm-lite identity`.

Examples:
  vmm-lite receive --listen tcp://10.9.0.2:7000 --tap tap0
  vmm-lite receive --listen tcp://10.9.0.2:7000 --tap tap0 --name kv2 --memory-max 1G";

/// Wait for a VM that moves here, and run it
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to wait for it
    #[arg(long, value_name = "tcp://HOST:PORT")]
    listen: Address,
    /// TAP device for a VM that has a network; it must exist
    #[arg(long, value_name = "DEVICE")]
    tap: Option<String>,
    /// Name for it here [default: the one it has]
    #[arg(long)]
    name: Option<String>,
    /// Refuse a VM with more memory
    #[arg(long, value_name = "SIZE", value_parser = arguments::size)]
    memory_max: Option<u64>,
    /// How long a VM whose memory still follows waits for a source that went away, before it is given up for lost
    #[arg(long, value_name = "TIME", default_value = "1min", value_parser = arguments::duration)]
    lost_after: Duration,
    #[command(flatten)]
    security: identity::Security,
}

/// Runs the verb.
///
/// # Errors
/// When nothing can be received here.
pub fn run(args: Args) -> super::Result {
    let signals = server::catch_signals()?;
    // What every VM needs is looked for now, not when one comes.
    drop(Host::open()?);
    let door = match args.security.dir() {
        Some(dir) => Door::tls(dir)?,
        None => {
            eprintln!("vmm-lite: warning: {PLAINTEXT_WARNING}");
            Door::Plaintext
        }
    };
    let listener = listen(&args.listen)?;
    let offering = Offering {
        name: args.name,
        tap: args.tap,
        memory_max: args.memory_max.unwrap_or(MEMORY_MAX),
        output: Some(io::stdout().as_fd().try_clone_to_owned()?),
        lost_after: args.lost_after,
    };
    let (arrived, arrivals) = channel();
    let receiver = Arc::new(Receiver::new(offering, arrived)?);
    eprintln!("vmm-lite: listening on {}", args.listen);
    listener::serve(listener, receiver, door)?;
    let Some(Arrived { vm, claim }) = wait(&arrivals, &signals)? else {
        return Ok(ExitCode::from(128 + libc::SIGTERM as u8));
    };
    eprintln!("vmm-lite: {} runs here now", claim.name());
    let server = Server::new(claim);
    let end = server::serve_until_end(&vm, &server, &signals)?;
    report::end(&end, None);
    Ok(ExitCode::from(end.exit_code()))
}

fn listen(at: &Address) -> Result<TcpListener, Box<dyn std::error::Error>> {
    let addresses = at.resolve()?;
    TcpListener::bind(&addresses[..]).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::AddrInUse => "another process listens there; choose another port",
            io::ErrorKind::AddrNotAvailable => "this host has no such address",
            io::ErrorKind::PermissionDenied => "ports below 1024 are root's",
            _ => "the host does not allow it",
        };
        format!("cannot listen on {at}: {hint}: {e}").into()
    })
}

/// Waits for a VM; `None` when a signal ends the waiting.
fn wait(arrivals: &Queue<Arrived>, signals: &Signals) -> io::Result<Option<Arrived>> {
    loop {
        if let Ok(arrived) = arrivals.recv_timeout(LOOK) {
            return Ok(Some(arrived));
        }
        if wait_readable(signals.fd(), Duration::ZERO)? && signals.take().is_some() {
            return Ok(None);
        }
    }
}
