//! QEMU microvm, with its own live migration, which is also its way to save a running guest.

use std::{fs::File, path::Path, process::Command, time::Instant};

use qemu_harness::{
    Accel, BootParams, Config, Machine, Net,
    machine::PROGRAM,
    migration::{self, Options},
    save,
};
use vmm_lite_lab::{
    Error, Result,
    exec::{self, Exec},
    site::Site,
    vmm::TIMEOUT,
};

use super::{GUEST_IP, GUEST_MAC, Guest, Moved, Restore, Saved, Started, System};

/// QEMU microvm with KVM, or TCG if QEMU cannot use KVM.
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

    fn config(&self, guest: &Guest, tap: &str) -> Config {
        let boot = BootParams {
            ip: Some(format!("{GUEST_IP}/24")),
            ..BootParams::with_args(guest.args.iter().cloned())
        };
        Config {
            memory_mib: guest.memory_mib,
            net: Some(Net { tap: tap.into(), mac: GUEST_MAC.into() }),
            boot,
            ..Config::new(&guest.image, self.accel)
        }
    }

    fn command(&self, host: usize) -> Command {
        self.site.hosts[host].ns.command(PROGRAM)
    }

    fn start_on(&self, host: usize, config: &Config) -> Result<Machine> {
        Machine::start_with(config, self.command(host)).map_err(qemu_error)
    }

    /// Starts `guest` from a file, in a QEMU process of its own.
    pub fn restored(&self, guest: &Guest, file: &Path, tap: &str) -> Result<(Machine, Started)> {
        let source = save::source(file).map_err(qemu_error)?;
        let config = Config { incoming: Some(source), ..self.config(guest, tap) };
        let mut command = self.command(0);
        let exec = Exec::of(&mut command)?;
        let mut machine = Machine::start_with(&config, command).map_err(qemu_error)?;
        save::wait_running(&mut machine, TIMEOUT).map_err(qemu_error)?;
        let runs = exec::monotonic();
        Ok((machine, Started { exec: exec.at()?, runs }))
    }
}

/// KVM if QEMU can use it.
pub fn accel() -> Accel {
    if qemu_harness::host::why_not(Accel::Kvm).is_none() { Accel::Kvm } else { Accel::Tcg }
}

/// Converts QEMU's errors to the lab's.
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

    fn start(&mut self, guest: &Guest) -> Result<()> {
        self.at = 0;
        let config = self.config(guest, "tap0");
        self.machine = Some(self.start_on(0, &config)?);
        self.config = Some(config);
        Ok(())
    }

    fn move_on(&mut self) -> Result<Moved> {
        let config = self.config.clone().expect("started before it is moved");
        let to = 1 - self.at;
        let incoming = Config { incoming: Some("defer".into()), ..config };
        let mut destination = self.start_on(to, &incoming)?;
        let mut source = self.machine.take().expect("started before it is moved");
        // A recently used port may still be in TIME_WAIT.
        self.moves = (self.moves + 1) % 1000;
        let uri = format!("tcp:{}:{}", self.site.hosts[to].migration_ip, 7100 + self.moves);
        let began = Instant::now();
        let report = migration::migrate(&mut source, &mut destination, &Options::new(uri))
            .map_err(qemu_error)?;
        let total_ns = began.elapsed().as_nanos() as u64;
        source.quit().map_err(qemu_error)?;
        self.machine = Some(destination);
        self.at = to;
        Ok(Moved {
            blackout_ns: u64::try_from(report.stop_to_resume_us).unwrap_or(0) * 1000,
            total_ns,
            bytes_sent: report.transferred,
            rounds: report.rounds,
            ..Moved::default()
        })
    }

    fn save(&mut self, file: &Path, limit_ms: u64) -> Result<Saved> {
        let machine = self.machine.as_mut().expect("started before it is saved");
        let began = Instant::now();
        let report = save::to_file(machine, file, limit_ms).map_err(qemu_error)?;
        // As vmm-lite syncs its files.
        File::open(file).and_then(|file| file.sync_all()).map_err(|source| Error::Io {
            what: format!("synchronize {}", file.display()),
            source,
        })?;
        Ok(Saved {
            pause_ns: u64::try_from(report.stop_to_resume_us).unwrap_or(0) * 1000,
            total_ns: began.elapsed().as_nanos() as u64,
        })
    }

    fn ways(&self) -> &'static [Restore] {
        &[Restore::Eager]
    }

    fn restore(&mut self, guest: &Guest, file: &Path, tap: &str, _: Restore) -> Result<Started> {
        self.at = 0;
        let (machine, started) = self.restored(guest, file, tap)?;
        self.machine = Some(machine);
        Ok(started)
    }

    fn kill(&mut self) {
        self.machine = None;
    }

    fn stop(&mut self) -> Result<()> {
        match self.machine.take() {
            Some(machine) => machine.quit().map_err(qemu_error),
            None => Ok(()),
        }
    }
}
