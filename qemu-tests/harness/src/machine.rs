//! One QEMU process, from its command line to its exit code.
//!
//! The machine is a minimal `microvm`: PVH boot, LAPIC and IOAPIC, one or two 16550 serial ports,
//! at most one virtio-net device on virtio-mmio. Two of QEMU's own devices report the program's
//! exit code: the guest writes it as a byte to [`EXIT_CODE_PORT`], then any value to [`EXIT_PORT`],
//! which ends QEMU. (The second alone loses the code's upper bit, and cannot distinguish a code of
//! 0 from QEMU's own failure.)

use crate::boot_params::BootParams;
use crate::console::{Capture, Console};
use crate::process;
use crate::qmp::Qmp;
use crate::quiesce::QuiesceUart;
use crate::{Error, Result};
use serde_json::json;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use vmm_lite_interface::qemu::{EXIT_CODE_PORT, EXIT_PORT};

/// The program.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// How long QEMU may take to start; generous, for busy hosts.
const START: Duration = Duration::from_secs(30);

/// How guest code is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accel {
    /// By translation: works everywhere.
    Tcg,
    /// By KVM.
    Kvm,
}

impl Accel {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Tcg, Self::Kvm];

    fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Tcg => ["-accel", "tcg", "-cpu", "max"],
            // Without `-arch-capabilities` QEMU sets an MSR that KVM may not have, and aborts.
            Self::Kvm => ["-accel", "kvm", "-cpu", "max,-arch-capabilities"],
        }
    }
}

/// The guest's network device.
#[derive(Clone, Debug)]
pub struct Net {
    /// An existing TAP device, in the network namespace that QEMU runs in.
    pub tap: String,
    /// The guest's address, `52:54:00:12:34:56`.
    pub mac: String,
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Config {
    /// The unikernel image.
    pub image: PathBuf,
    /// How to run it.
    pub accel: Accel,
    /// Memory of the guest, in MiB.
    pub memory_mib: u32,
    /// Its network, if any.
    pub net: Option<Net>,
    /// Boot parameters of the guest.
    pub boot: BootParams,
    /// Whether it has a second serial port for [`QuiesceUart`], and is told so.
    pub quiesce: bool,
    /// Wait for a migration instead of booting the image: `defer`, or the source's address.
    /// Everything else must be as at the source.
    pub incoming: Option<String>,
}

impl Config {
    /// An image with 32 MiB, without network and boot parameters.
    pub fn new(image: impl Into<PathBuf>, accel: Accel) -> Self {
        Self {
            image: image.into(),
            accel,
            memory_mib: 32,
            net: None,
            boot: BootParams::default(),
            quiesce: false,
            incoming: None,
        }
    }

    /// QEMU's arguments without the descriptors of its sockets: for reports.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let mut args: Vec<String> = [
            "-M",
            "microvm,acpi=off,pit=off,pic=off,rtc=on,isa-serial=on,auto-kernel-cmdline=off",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-global",
            "virtio-mmio.force-legacy=false",
            "-smp",
            "1",
        ]
        .map(str::to_owned)
        .into();
        let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
        for pair in self.accel.arguments().chunks_exact(2) {
            add(pair[0], pair[1].to_owned());
        }
        add("-m", format!("{}M", self.memory_mib));
        add("-kernel", self.image.display().to_string());
        let command_line = self.boot.to_command_line(self.quiesce);
        if !command_line.is_empty() {
            add("-append", command_line);
        }
        if let Some(Net { tap, mac }) = &self.net {
            add("-netdev", format!("tap,id=net0,ifname={tap},script=no,downscript=no"));
            add("-device", format!("virtio-net-device,netdev=net0,mac={mac}"));
        }
        if let Some(source) = &self.incoming {
            add("-incoming", source.clone());
        }
        args
    }
}

/// How a machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The program ended with this code.
    Code(u8),
    /// QEMU ended without a code: it was told to quit, was killed, failed, or the guest reset
    /// itself (a triple fault).
    NoCode(ExitStatus),
}

/// A running QEMU. Dropping it ends the process, and so does the end of the thread that started it.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    spawned: Instant,
    console: Console,
    messages: Capture,
    qmp: Qmp,
    quiesce: Option<QuiesceUart>,
    exit_code: UnixStream,
}

impl Machine {
    /// Starts QEMU and waits until its monitor answers. The guest then runs, unless it waits for a
    /// migration.
    ///
    /// # Errors
    /// [`Error::Start`] if there is no QEMU, [`Error::Ended`] with its message if it refuses the
    /// arguments.
    pub fn start(config: &Config) -> Result<Self> {
        Self::start_with(config, Command::new(PROGRAM))
    }

    /// Like [`start`](Self::start), with a command for [`PROGRAM`] that sets its environment, such
    /// as a network namespace.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: &Config, mut command: Command) -> Result<Self> {
        command.args(config.arguments());
        let mut inherited = Vec::new();
        let mut channel = |id: &str, device: [&str; 2]| -> Result<UnixStream> {
            let (ours, theirs) = UnixStream::pair().map_err(Error::io("socket pair"))?;
            command
                .args(["-chardev", &format!("socket,id={id},fd={}", theirs.as_raw_fd())])
                .args(device);
            inherited.push(OwnedFd::from(theirs));
            Ok(ours)
        };
        let qmp = channel("qmp", ["-mon", "chardev=qmp,mode=control"])?;
        let console = channel("console", ["-serial", "chardev:console"])?;
        let code = format!("isa-debugcon,iobase={EXIT_CODE_PORT:#x},chardev=code");
        let exit_code = channel("code", ["-device", &code])?;
        let quiesce = config
            .quiesce
            .then(|| channel("quiesce", ["-device", "isa-serial,index=1,chardev=quiesce"]))
            .transpose()?;
        command.args(["-device", &format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=1")]);

        let console = Console::new(console)?;
        let spawned = Instant::now();
        let mut child = process::spawn(&mut command, &inherited)
            .map_err(|source| Error::Start { program: PROGRAM.to_owned(), source })?;
        // The other ends of the sockets: from here on only QEMU holds them, so they close when it
        // ends.
        drop(inherited);
        let stderr = child.stderr.take().expect("spawned with a pipe");
        let messages = Capture::of(stderr, "messages").map_err(Error::io("thread"));
        let connected = messages.and_then(|messages| {
            let qmp = Qmp::connect(qmp, START)
                .map_err(|error| explain(error, &mut child, &messages, "its monitor answered"))?;
            Ok((messages, qmp))
        });
        match connected {
            Ok((messages, qmp)) => Ok(Self {
                child,
                spawned,
                console,
                messages,
                qmp,
                quiesce: quiesce.map(QuiesceUart::new),
                exit_code,
            }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }

    /// When the process was started.
    #[must_use]
    pub fn spawned(&self) -> Instant {
        self.spawned
    }

    /// QEMU's process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first serial port.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }

    /// The monitor.
    pub fn qmp(&mut self) -> &mut Qmp {
        &mut self.qmp
    }

    /// The second serial port, if [`Config::quiesce`] asked for one.
    pub fn quiesce(&mut self) -> Option<&mut QuiesceUart> {
        self.quiesce.as_mut()
    }

    /// Waits until QEMU has ended, with its guest's program or otherwise.
    ///
    /// # Errors
    /// [`Error::Timeout`] with the end of the console's output if it does not end.
    pub fn wait_exit(&mut self, timeout: Duration) -> Result<Exit> {
        // Only QEMU holds the other end of its standard error.
        if !self.messages.wait_end(timeout) {
            let text = self.console.text();
            let from = text.lines().count().saturating_sub(20);
            return Err(Error::Timeout {
                expected: "end of QEMU".to_owned(),
                timeout,
                last_seen: text.lines().skip(from).collect::<Vec<_>>().join("\n"),
            });
        }
        let status = self.child.wait().map_err(Error::io("waiting for QEMU"))?;
        self.console.wait_end(timeout);
        let mut code = Vec::new();
        self.exit_code.read_to_end(&mut code).map_err(Error::io("exit code channel"))?;
        Ok(code.last().map_or(Exit::NoCode(status), |&code| Exit::Code(code)))
    }

    /// Ends QEMU through its monitor, without asking the guest.
    ///
    /// # Errors
    /// Errors of the monitor and of [`wait_exit`](Self::wait_exit).
    pub fn quit(mut self) -> Result<()> {
        self.qmp.execute("quit", json!({}))?;
        self.wait_exit(START).map(drop)
    }

    /// Replaces an error that reports only a closed channel by its cause: QEMU's end.
    pub(crate) fn explain(&mut self, error: Error, expected: &str) -> Error {
        explain(error, &mut self.child, &self.messages, expected)
    }

    /// QEMU's own messages.
    #[must_use]
    pub fn messages(&self) -> String {
        self.messages.text()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn end(child: &mut Child) {
    // Fails only for a process that has been waited for: then there is nothing left to end.
    let _ = child.kill();
    let _ = child.wait();
}

/// A closed monitor says little; the process that had it says more.
fn explain(error: Error, child: &mut Child, messages: &Capture, expected: &str) -> Error {
    // Its end may be noticed on another channel a little later.
    if !matches!(error, Error::Closed(_)) || !messages.wait_end(Duration::from_secs(2)) {
        return error;
    }
    match child.wait() {
        Ok(status) => Error::Ended {
            status: status.to_string(),
            expected: expected.to_owned(),
            messages: messages.text().trim().to_owned(),
        },
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contains_the_configuration() {
        let config = Config {
            memory_mib: 16,
            net: Some(Net { tap: "tap3".into(), mac: "52:54:00:00:00:01".into() }),
            boot: BootParams::with_args(["--port", "1"]),
            quiesce: true,
            incoming: Some("defer".into()),
            ..Config::new("/tmp/kv.img", Accel::Kvm)
        };
        let line = config.arguments().join(" ");
        for part in [
            "-accel kvm -cpu max,-arch-capabilities -m 16M -kernel /tmp/kv.img",
            "-append quiesce=uart -- --port 1",
            "-netdev tap,id=net0,ifname=tap3,script=no,downscript=no",
            "-device virtio-net-device,netdev=net0,mac=52:54:00:00:00:01",
            "-incoming defer",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
        let plain = Config::new("x", Accel::Tcg).arguments().join(" ");
        assert!(plain.contains("-accel tcg -cpu max -m 32M"), "{plain}");
        assert!(!plain.contains("-append") && !plain.contains("net0"), "{plain}");
    }
}
