//! The two systems, behind one interface: start a guest, move it to the other host, save it, start
//! it from a file, end it.

mod qemu;
mod vmm_lite;

pub use qemu::{Qemu, accel, qemu_error};
pub use vmm_lite::VmmLite;

use std::{
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use vmm_lite_lab::{Error, Result, site::Site, vmm::TIMEOUT};

/// The guest's address on the data network.
pub const GUEST_IP: &str = "10.0.0.2";
/// The guest's MAC address under both systems, so that the client's neighbour table is right for
/// either.
pub const GUEST_MAC: &str = "52:54:00:00:00:02";
/// Memory of every guest here, in MiB: 16 for the key-value store, as the targets say; dirtier
/// needs room for its pages.
pub const KV_MEMORY_MIB: u32 = 16;
/// See [`KV_MEMORY_MIB`].
pub const DIRTIER_MEMORY_MIB: u32 = 32;

/// Which system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Which {
    /// vmm-lite.
    VmmLite,
    /// QEMU.
    Qemu,
}

impl Which {
    /// Both, in the order in which they alternate.
    pub const ALL: [Self; 2] = [Self::VmmLite, Self::Qemu];

    /// Its name on the command line.
    pub fn key(self) -> &'static str {
        match self {
            Self::VmmLite => "vmm-lite",
            Self::Qemu => "qemu",
        }
    }

    /// The system, on the hosts of `site`.
    pub fn on(self, site: &Site) -> Result<Box<dyn System>> {
        Ok(match self {
            Self::VmmLite => Box::new(VmmLite::new(site)?),
            Self::Qemu => Box::new(Qemu::new(site)),
        })
    }
}

/// A guest to start.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Its image.
    pub image: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Arguments of the program.
    pub args: Vec<String>,
}

/// A system's report of one move.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Moved {
    /// Blackout as the system itself reports, ns. vmm-lite: request to pause until first
    /// instruction. QEMU: from its STOP to its RESUME event, which leaves out its vCPUs' stop and
    /// start.
    pub blackout_ns: u64,
    /// From the command until it was done, ns.
    pub total_ns: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Rounds.
    pub rounds: u64,
    /// The blackout by phase, ns, in the order of [`PHASES`]; zeros if the system does not report
    /// them.
    pub phases_ns: [u64; PHASES.len()],
    /// Pages sent in the blackout; 0 if the system does not report them.
    pub last_pages: u64,
}

/// The phases of the blackout, as the report of a move names them.
pub const PHASES: [&str; 4] =
    ["quiesce_ns", "last_pages_and_state_ns", "transfer_and_apply_ns", "commit_and_run_ns"];

/// A system's report of one snapshot.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    /// Pause as the system itself reports, ns: of the same events as [`Moved::blackout_ns`].
    pub pause_ns: u64,
    /// From the command until the file was on the disk and the guest ran, ns.
    pub total_ns: u64,
}

/// How a guest is started from a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restore {
    /// All memory is read first.
    Eager,
    /// The guest runs while its memory is read.
    Lazy,
}

/// A guest that runs on one of the site's hosts.
pub trait System {
    /// vmm-lite or QEMU.
    fn name(&self) -> &'static str;
    /// Starts the guest on host 0.
    fn start(&mut self, guest: &Guest) -> Result<()>;
    /// Moves it to the other host.
    fn move_on(&mut self) -> Result<Moved>;
    /// Saves it to `file`, and keeps it running. QEMU stops it when it expects to finish within
    /// `limit_ms`; vmm-lite has no such limit.
    fn save(&mut self, file: &Path, limit_ms: u64) -> Result<Saved>;
    /// The ways to start from a file.
    fn ways(&self) -> &'static [Restore];
    /// Starts `guest` from a file it was saved to, on host 0 with the TAP device `tap`. Returns the
    /// times of start and end, by the monotonic clock: from right before exec until its vCPU
    /// entered it (vmm-lite), or until the RESUME event arrived (QEMU, as [`Moved::blackout_ns`]).
    fn restore(&mut self, guest: &Guest, file: &Path, tap: &str, how: Restore) -> Result<Started>;
    /// Ends it unconditionally.
    fn kill(&mut self);
    /// Ends it in an orderly way.
    fn stop(&mut self) -> Result<()>;
}

/// When a guest was started, by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    /// Right before exec of the system's program.
    pub exec: Duration,
    /// When the guest ran.
    pub runs: Duration,
}

impl Started {
    /// How long that took, ns.
    pub fn took_ns(&self) -> u64 {
        self.runs.saturating_sub(self.exec).as_nanos() as u64
    }
}

/// Connects from the client to a port of the guest as soon as it listens.
pub fn connect(site: &Site, port: u16) -> Result<TcpStream> {
    let to: SocketAddr = format!("{GUEST_IP}:{port}").parse().expect("constants");
    site.client.enter(move || {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match TcpStream::connect_timeout(&to, TIMEOUT) {
                Ok(stream) => {
                    stream
                        .set_read_timeout(Some(TIMEOUT))
                        .and_then(|()| stream.set_nodelay(true))
                        .map_err(|source| Error::Io {
                            what: "set up a connection to the guest".into(),
                            source,
                        })?;
                    return Ok(stream);
                }
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Err(source) => {
                    return Err(Error::Io {
                        what: format!("connect to the guest at {to}"),
                        source,
                    });
                }
            }
        }
    })?
}
