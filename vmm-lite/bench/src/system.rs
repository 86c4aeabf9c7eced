//! The two systems, behind what the bench asks of both: start a guest, move it to the other host, end it.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use qemu_tests::{
    Accel, BootParams, Config, Machine, Net,
    machine::PROGRAM,
    migration::{self, Options},
};
use serde::Serialize;
use vmm_lite_lab::{
    Error, Result,
    process::Process,
    site::Site,
    vmm::{PATIENCE, Vmm},
};

/// The guest's address on the data network.
pub const GUEST_IP: &str = "10.0.0.2";
/// The guest's MAC address under both systems, so that the client's neighbour table is right for whichever has its turn.
const GUEST_MAC: &str = "52:54:00:00:00:02";
/// Memory of every guest here, in MiB. 16 for the key-value store, as the targets say; dirtier needs room for its pages.
pub const KV_MEMORY_MIB: u32 = 16;
/// See [`KV_MEMORY_MIB`].
pub const DIRTIER_MEMORY_MIB: u32 = 32;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Its image.
    pub image: &'a Path,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Arguments of the program.
    pub args: &'a [&'a str],
}

/// What a system says of one move.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Said {
    /// Blackout by the system's own account, ns. vmm-lite: request to pause until first instruction. QEMU: from its STOP to its
    /// RESUME event, which leaves out its vCPUs' stop and start.
    pub blackout_ns: u64,
    /// From the command until it was done, ns.
    pub total_ns: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Rounds.
    pub rounds: u64,
}

/// A guest that runs somewhere on the site.
pub trait System {
    /// vmm-lite or QEMU.
    fn name(&self) -> &'static str;
    /// Starts the guest on host 0.
    fn start(&mut self, guest: &Guest<'_>) -> Result<()>;
    /// Moves it to the other host.
    fn move_on(&mut self) -> Result<Said>;
    /// Ends it.
    fn stop(&mut self) -> Result<()>;
}

/// `vmm-lite run`, `receive` and `migrate`.
pub struct VmmLite {
    vmms: [Vmm; 2],
    at: usize,
    process: Option<Process>,
}

impl VmmLite {
    /// On the site's hosts.
    pub fn new(site: &Site) -> Result<Self> {
        Ok(Self {
            vmms: [Vmm::on(&site.hosts[0])?, Vmm::on(&site.hosts[1])?],
            at: 0,
            process: None,
        })
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("started before it is moved or stopped")
    }
}

const NAME: &str = "bench";
const PORT: u16 = 7000;

impl System for VmmLite {
    fn name(&self) -> &'static str {
        "vmm-lite"
    }

    fn start(&mut self, guest: &Guest<'_>) -> Result<()> {
        self.at = 0;
        let memory = format!("{}M", guest.memory_mib);
        let ip = format!("{GUEST_IP}/24");
        let mut args = vec!["--name", NAME, "--memory", &memory];
        args.extend(["--tap", "tap0", "--ip", &ip, "--mac", GUEST_MAC, "--"]);
        args.extend(guest.args);
        self.process = Some(self.vmms[0].run(guest.image, &args)?);
        Ok(())
    }

    fn move_on(&mut self) -> Result<Said> {
        let (from, to) = (self.at, 1 - self.at);
        let destination = self.vmms[to].receive(PORT, &["--tap", "tap0"])?;
        let report = self.vmms[from].migrate(NAME, &self.vmms[to].url(PORT))?;
        // The source ends by itself once nothing more arrives for the guest there.
        self.process().wait(PATIENCE)?;
        self.process = Some(destination);
        self.at = to;
        let figure = |key: &str| {
            report[key].as_u64().ok_or_else(|| Error::Protocol {
                what: format!("no {key} in the report of a move"),
                said: report.to_string(),
            })
        };
        Ok(Said {
            blackout_ns: figure("blackout_ns")?,
            total_ns: figure("total_ns")?,
            bytes_sent: figure("bytes_sent")?,
            rounds: figure("rounds")?,
        })
    }

    fn stop(&mut self) -> Result<()> {
        self.vmms[self.at].json(&["stop", NAME, "--json"])?;
        self.process().wait(PATIENCE)?;
        self.process = None;
        Ok(())
    }
}

/// QEMU microvm with KVM, or TCG where QEMU cannot have KVM.
pub struct Qemu {
    site: Site,
    accel: Accel,
    config: Option<Config>,
    at: usize,
    machine: Option<Machine>,
    moves: u16,
}

impl Qemu {
    /// On the site's hosts.
    pub fn new(site: &Site) -> Self {
        Self { site: site.clone(), accel: accel(), config: None, at: 0, machine: None, moves: 0 }
    }

    fn start_on(&self, host: usize, config: &Config) -> Result<Machine> {
        let command: Command = self.site.hosts[host].ns.command(PROGRAM);
        Machine::start_with(config, command).map_err(qemu_error)
    }
}

/// KVM where QEMU can have it.
pub fn accel() -> Accel {
    if qemu_tests::host::why_not(Accel::Kvm).is_none() { Accel::Kvm } else { Accel::Tcg }
}

/// QEMU's errors as the lab's.
pub fn qemu_error(e: impl std::fmt::Display) -> Error {
    Error::Protocol { what: "QEMU".into(), said: e.to_string() }
}

impl System for Qemu {
    fn name(&self) -> &'static str {
        match self.accel {
            Accel::Kvm => "QEMU (KVM)",
            Accel::Tcg => "QEMU (TCG)",
        }
    }

    fn start(&mut self, guest: &Guest<'_>) -> Result<()> {
        self.at = 0;
        let boot = BootParams {
            ip: Some(format!("{GUEST_IP}/24")),
            ..BootParams::with_args(guest.args.iter().copied())
        };
        let config = Config {
            memory_mib: guest.memory_mib,
            net: Some(Net { tap: "tap0".into(), mac: GUEST_MAC.into() }),
            boot,
            ..Config::new(guest.image, self.accel)
        };
        self.machine = Some(self.start_on(0, &config)?);
        self.config = Some(config);
        Ok(())
    }

    fn move_on(&mut self) -> Result<Said> {
        let config = self.config.clone().expect("started before it is moved");
        let to = 1 - self.at;
        let incoming = Config { incoming: true, ..config };
        let mut destination = self.start_on(to, &incoming)?;
        let mut source = self.machine.take().expect("started before it is moved");
        // A port that has just been used may still be in TIME_WAIT.
        self.moves = (self.moves + 1) % 1000;
        let uri = format!("tcp:{}:{}", self.site.hosts[to].migration_ip, 7100 + self.moves);
        let began = Instant::now();
        let report = migration::migrate(&mut source, &mut destination, &Options::new(uri))
            .map_err(qemu_error)?;
        let total_ns = began.elapsed().as_nanos() as u64;
        source.quit().map_err(qemu_error)?;
        self.machine = Some(destination);
        self.at = to;
        Ok(Said {
            blackout_ns: u64::try_from(report.stop_to_resume_us).unwrap_or(0) * 1000,
            total_ns,
            bytes_sent: report.transferred,
            rounds: report.rounds,
        })
    }

    fn stop(&mut self) -> Result<()> {
        match self.machine.take() {
            Some(machine) => machine.quit().map_err(qemu_error),
            None => Ok(()),
        }
    }
}

/// Connects from the client to a port of the guest as soon as it listens.
pub fn connect(site: &Site, port: u16) -> Result<TcpStream> {
    let to: SocketAddr = format!("{GUEST_IP}:{port}").parse().expect("constants");
    site.client.enter(move || {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match TcpStream::connect_timeout(&to, PATIENCE) {
                Ok(stream) => {
                    stream
                        .set_read_timeout(Some(PATIENCE))
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
