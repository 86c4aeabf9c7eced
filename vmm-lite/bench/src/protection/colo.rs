//! The same image under QEMU's COLO: two VMs run beside each other, their packets are compared, and
//! where they differ the primary's state is copied.
//!
//! QEMU does not notice a death by itself: it is told. Here it is told at once, so the time that an
//! external monitor takes is not in the figures.

use std::{
    process::Command,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::Instant,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use qemu_harness::{BootParams, Config, Machine, Net, machine::PROGRAM};
use serde_json::json;
use vmm_lite_lab::{Error, Result, error::Doing, images::image, site::Site, vmm::TIMEOUT};

use super::pair::LOOK;
use crate::system::{GUEST_IP, GUEST_MAC, accel, qemu_error};

const MEMORY_MIB: u32 = 64;

/// A primary on the first host and a secondary on the second one.
pub struct Colo {
    primary: Machine,
    secondary: Machine,
}

impl Colo {
    /// Starts both and waits until they run beside each other.
    pub fn start(site: &Site) -> Result<Self> {
        // A recently used port may still be in TIME_WAIT.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let port = 9000 + 10 * (NEXT.fetch_add(1, Relaxed) % 500);
        let [a, b] = &site.hosts;
        let incoming = format!("tcp:{}:{}", b.migration_ip, port + 9);
        let config = |incoming| -> Result<Config> {
            Ok(Config {
                memory_mib: MEMORY_MIB,
                net: Some(Net { tap: "tap0".into(), mac: GUEST_MAC.into() }),
                boot: BootParams { ip: Some(format!("{GUEST_IP}/24")), ..BootParams::default() },
                incoming,
                ..Config::new(image("kv")?, accel())
            })
        };
        let mut command = a.ns.command(PROGRAM);
        on_primary(&mut command, &a.migration_ip, port);
        let primary = Machine::start_with(&config(None)?, command).map_err(qemu_error)?;
        let mut command = b.ns.command(PROGRAM);
        on_secondary(&mut command, &a.migration_ip, port);
        let config = config(Some(incoming.clone()))?;
        let secondary = Machine::start_with(&config, command).map_err(qemu_error)?;
        let mut this = Self { primary, secondary };
        this.join(&incoming).map_err(|e| Error::Protocol {
            what: format!("COLO: {e}"),
            said: format!("{}\n{}", this.primary.messages(), this.secondary.messages()),
        })?;
        Ok(this)
    }

    fn join(&mut self, incoming: &str) -> Result<()> {
        let colo = json!({ "capabilities": [{ "capability": "x-colo", "state": true }] });
        for machine in [&mut self.primary, &mut self.secondary] {
            let set = machine.qmp().execute("migrate-set-capabilities", colo.clone());
            set.map_err(qemu_error)?;
        }
        let migrate = self.primary.qmp().execute("migrate", json!({ "uri": incoming }));
        migrate.map_err(qemu_error)?;
        let end = Instant::now() + TIMEOUT;
        loop {
            let mode = |machine: &mut Machine| {
                let status = machine.qmp().execute("query-colo-status", json!({}));
                status.map(|status| status["mode"].clone()).map_err(qemu_error)
            };
            if mode(&mut self.primary)? == "primary" && mode(&mut self.secondary)? == "secondary" {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(qemu_error("primary and secondary do not run beside each other"));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Kills the primary, and tells the secondary.
    pub fn kill_primary(&mut self) -> Result<()> {
        kill(Pid::from_raw(self.primary.id().cast_signed()), Signal::SIGKILL).doing("kill QEMU")?;
        let mut tell = |command: &str, arguments| {
            self.secondary.qmp().execute(command, arguments).map(drop).map_err(qemu_error)
        };
        tell("x-colo-lost-heartbeat", json!({}))?;
        for filter in ["sent", "given"] {
            tell("object-del", json!({ "id": filter }))?;
        }
        // The network finds the VM at its new place.
        let announce = json!({ "initial": 5, "max": 50, "rounds": 3, "step": 10 });
        tell("announce-self", announce)
    }

    /// The processes on both hosts.
    pub fn pids(&self) -> [Vec<u32>; 2] {
        [vec![self.primary.id()], vec![self.secondary.id()]]
    }
}

/// Sends a copy of what the guest is given, gets what the other one sends, and compares.
fn on_primary(command: &mut Command, ip: &str, port: u16) {
    let chardevs = [
        format!("id=mirror,host={ip},port={port},server=on,wait=off"),
        format!("id=theirs,host={ip},port={},server=on,wait=off", port + 1),
        format!("id=ours-in,host=127.0.0.1,port={},server=on,wait=off", port + 2),
        format!("id=ours,host=127.0.0.1,port={}", port + 2),
        format!("id=same-in,host=127.0.0.1,port={},server=on,wait=off", port + 3),
        format!("id=same,host=127.0.0.1,port={}", port + 3),
    ];
    for chardev in chardevs {
        command.args(["-chardev", &format!("socket,{chardev}")]);
    }
    let objects = [
        "filter-mirror,id=given,netdev=net0,queue=tx,outdev=mirror",
        "filter-redirector,id=leaves,netdev=net0,queue=rx,indev=same-in",
        "filter-redirector,id=sent,netdev=net0,queue=rx,outdev=ours-in",
        "colo-compare,id=compare,primary_in=ours,secondary_in=theirs,outdev=same,iothread=io",
    ];
    command.args(["-object", "iothread,id=io"]);
    for object in objects {
        command.args(["-object", &format!("{object},vnet_hdr_support=on")]);
    }
}

/// Gives the guest what the primary's is given, and sends its packets there, numbered as those.
fn on_secondary(command: &mut Command, ip: &str, port: u16) {
    for (id, port) in [("mirror", port), ("theirs", port + 1)] {
        command.args(["-chardev", &format!("socket,id={id},host={ip},port={port},reconnect=1")]);
    }
    let objects = [
        "filter-redirector,id=given,netdev=net0,queue=tx,indev=mirror",
        "filter-redirector,id=sent,netdev=net0,queue=rx,outdev=theirs",
        "filter-rewriter,id=numbers,netdev=net0,queue=all",
    ];
    for object in objects {
        command.args(["-object", &format!("{object},vnet_hdr_support=on")]);
    }
}
