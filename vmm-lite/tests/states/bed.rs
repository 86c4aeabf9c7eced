//! Test bed: brings a VM into a state, and runs a verb in it.

mod check;
mod state;

pub use state::State;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use vmm::fail_point::{self, CHOICE};
use vmm_lite_lab::{
    images::image,
    process::Process,
    relay::{Fate, Relay},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

const PORT: u16 = 7000;
/// How often a state without notification is polled.
const LOOK: Duration = Duration::from_millis(5);

/// Two hosts, and no network for the VM.
pub struct Bed {
    site: Site,
    vmms: [Vmm; 2],
    image: PathBuf,
    dir: tempfile::TempDir,
    /// A snapshot of the VM, to revert to or to restore.
    snapshot: String,
}

/// A VM in a state, the operation that brought it there, and its destination.
pub struct Scene {
    pub vm: Process,
    pub operation: Option<Process>,
    pub destination: Process,
    /// Lets post-copy memory pass.
    passes: Arc<AtomicBool>,
}

impl Scene {
    /// Whether the operation succeeded. From now on post-copy memory passes.
    pub fn operation_ends(&mut self) -> bool {
        self.passes.store(true, SeqCst);
        self.operation.as_mut().unwrap().wait(TIMEOUT).unwrap().success()
    }
}

impl Bed {
    pub fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let snapshot = dir.path().join("base.snap").to_str().unwrap().to_owned();
        let bed = Self { site, vmms, image: image("dirtier").unwrap(), dir, snapshot };
        let mut vm = bed.run(&[], None);
        bed.vmms[0].json(&["snapshot", "d", &bed.snapshot, "--stop", "--json"]).unwrap();
        vm.wait(TIMEOUT).unwrap();
        Some(bed)
    }

    fn command(&self, args: &[&str], held_at: Option<&str>) -> Command {
        let mut command = self.vmms[0].command(args).unwrap();
        if let Some(point) = held_at {
            command.env(CHOICE, format!("{point}=hold"));
        }
        command
    }

    fn run(&self, extra: &[&str], held_at: Option<&str>) -> Process {
        let image = self.image.to_str().unwrap();
        let args = ["run", image, "--name", "d", "--memory", "8M"];
        let own = ["--", "--pages", "256"];
        let command = self.command(&[&args[..], extra, &own].concat(), held_at);
        let vm = Process::start(command).unwrap();
        match held_at {
            Some("run.booting") => held(&vm, "run.booting"),
            _ => is_whole(&vm),
        }
        vm
    }

    /// Starts a verb at the source.
    pub fn verb(&self, args: &[&str]) -> Process {
        Process::start(self.vmms[0].command(args).unwrap()).unwrap()
    }

    /// Starts to stop the VM at the destination.
    pub fn stops_there(&self) -> Process {
        Process::start(self.vmms[1].command(&["stop", "d"]).unwrap()).unwrap()
    }

    /// The destination's address.
    pub fn there(&self) -> String {
        self.vmms[1].url(PORT)
    }

    /// A destination that waits for a VM.
    pub fn receives(&self) -> Process {
        self.vmms[1].receive(PORT, &["--plaintext"]).unwrap()
    }

    /// A relay that drops what follows the commit until it may pass.
    fn relay(&self, passes: &Arc<AtomicBool>) -> String {
        let passes = Arc::clone(passes);
        let mut committed = false;
        let to = format!("{}:{PORT}", self.vmms[1].host().migration_ip);
        let relay = Relay::start(&self.site.hosts[0].ns, to, move |passing| {
            committed |= passing.kind == migrate::wire::Kind::Commit;
            let follows = committed && passing.kind == migrate::wire::Kind::Pages;
            if follows && !passes.load(SeqCst) { Fate::Lost } else { Fate::Pass }
        });
        relay.unwrap().url()
    }

    /// A path for a file.
    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Runs a verb at the source that succeeds, and returns its JSON.
    pub fn json(&self, args: &[&str]) -> Value {
        self.vmms[0].json(args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    /// The error of a verb at the source that is refused.
    pub fn refused(&self, args: &[&str]) -> String {
        let out = self.vmms[0].command(args).unwrap().output().unwrap();
        assert!(!out.status.success(), "{args:?} succeeds");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    /// Stops the VM at the destination.
    pub fn stop_there(&self) {
        self.vmms[1].json(&["stop", "d", "--json"]).unwrap();
    }

    /// A VM whose commit was sent to a destination that died right after.
    pub fn unreachable(&self) -> Scene {
        let url = self.vmms[1].url(PORT);
        let mut receive =
            self.vmms[1].command(&["receive", "--listen", &url, "--plaintext"]).unwrap();
        receive.env(CHOICE, "destination.written-down=kill");
        let destination = Process::start(receive).unwrap();
        destination.wait_for_line("listening", TIMEOUT).unwrap();
        let vm = self.run(&[], None);
        let operation = Some(self.verb(&["migrate", "d", &url, "--plaintext", "--json"]));
        vm.wait_for_line("asking tcp://", TIMEOUT).unwrap();
        Scene { vm, operation, destination, passes: Arc::default() }
    }

    /// A VM that was handed over with post-copy, to a destination started with these fail points
    /// and a timeout as long as the test's.
    pub fn handed_over(&self, fail_points: &str) -> Scene {
        let url = self.vmms[1].url(PORT);
        let mut receive =
            self.vmms[1].command(&["receive", "--listen", &url, "--plaintext"]).unwrap();
        receive.env(CHOICE, fail_points).env(fail_point::TIMEOUT, "60s");
        let destination = Process::start(receive).unwrap();
        destination.wait_for_line("listening", TIMEOUT).unwrap();
        let passes = Arc::new(AtomicBool::new(false));
        let vm = self.run(&[], None);
        let url = self.relay(&passes);
        let migrate = ["migrate", "d", &url, "--plaintext", "--json", "--mode", "hybrid"];
        let operation = Some(self.verb(&migrate));
        destination.wait_for_line("here now", TIMEOUT).unwrap();
        Scene { vm, operation, destination, passes }
    }

    /// A VM with these fail points whose link breaks after the commit, and again when its source
    /// has reconnected to query; then it holds.
    pub fn cut_off(&self, fail_points: &str) -> Scene {
        let destination = self.receives();
        let vm = self.failing(fail_points);
        let (mut committed, mut cuts) = (false, 0);
        let to = format!("{}:{PORT}", self.vmms[1].host().migration_ip);
        let relay = Relay::start(&self.site.hosts[0].ns, to, move |passing| {
            let after = committed;
            committed |= passing.kind == migrate::wire::Kind::Commit;
            // Not the same connection twice.
            if after && cuts < 2 && (cuts == 0 || passing.to_destination) {
                cuts += 1;
                return Fate::CutBefore;
            }
            Fate::Pass
        });
        let url = relay.unwrap().url();
        // After the commit of such a move the source sends nothing by itself.
        let migrate = ["migrate", "d", &url, "--plaintext", "--json", "--mode", "pre-copy"];
        let operation = Some(self.verb(&migrate));
        destination.wait_for_line("here now", TIMEOUT).unwrap();
        Scene { vm, operation, destination, passes: Arc::default() }
    }

    /// A VM with these fail points.
    pub fn failing(&self, fail_points: &str) -> Process {
        let image = self.image.to_str().unwrap();
        let mut command = self.command(&["run", image, "--name", "d", "--memory", "8M"], None);
        command.args(["--", "--pages", "256"]).env(CHOICE, fail_points);
        let vm = Process::start(command).unwrap();
        is_whole(&vm);
        vm
    }

    /// Whether the name of the VM is free at the source: another VM can claim it.
    pub fn name_is_free(&self) -> bool {
        let image = self.image.to_str().unwrap();
        let mut other = self.verb(&["run", image, "--name", "d", "--", "--pages", "16"]);
        let line = other.wait_for_line("passes=", TIMEOUT);
        // It ends with this.
        other.signal(Signal::SIGTERM).unwrap_or_default();
        other.wait(TIMEOUT).unwrap();
        line.is_ok()
    }

    /// Checks that the VM runs at the source.
    pub fn runs_on(&self, scene: &mut Scene) {
        self.is("it keeps running", "runs", scene);
    }

    /// Waits until the operation ends, and checks the VM's final state.
    pub fn check_after(&self, what: &str, after: &str, scene: &mut Scene) {
        scene.passes.store(true, SeqCst);
        self.is(what, after, scene);
    }

    /// Moves the VM, and returns its stats at the destination.
    pub fn moved_once_more(&self, scene: Scene) -> Value {
        let _there = self.vmms[1].receive(PORT, &["--plaintext"]).unwrap();
        let _vm = scene.vm;
        self.json(&["migrate", "d", &self.vmms[1].url(PORT), "--plaintext", "--json"]);
        self.stats(1).unwrap()
    }

    pub fn bring(&self, state: State) -> Scene {
        let destination = self.vmms[1].receive(PORT, &["--plaintext"]).unwrap();
        let url = self.vmms[1].url(PORT);
        let passes = Arc::new(AtomicBool::new(false));
        let at = state.held_at();
        let moves = |url: &str, mode: &str| {
            self.verb(&["migrate", "d", url, "--plaintext", "--json", "--mode", mode])
        };
        let out = self.dir.path().join("out.snap");
        let vm = match state {
            State::Loading | State::Restoring => {
                let mut args = vec!["restore", &self.snapshot];
                args.extend((state == State::Loading).then_some("--lazy"));
                let vm = Process::start(self.command(&args, at)).unwrap();
                held(&vm, at.unwrap());
                vm
            }
            _ => self.run(&[], at),
        };
        let operation = match state {
            State::Paused => {
                self.vmms[0].json(&["pause", "d", "--json"]).unwrap();
                None
            }
            State::Quiescing => Some(self.verb(&["pause", "d", "--quiesce", "100"])),
            State::Moving | State::Switching => Some(moves(&url, "pre-copy")),
            State::HandedOver => Some(moves(&self.relay(&passes), "hybrid")),
            State::Saving => Some(self.verb(&["snapshot", "d", out.to_str().unwrap()])),
            State::Forking => {
                Some(self.verb(&["fork", "d", "--prefix", "clone", "--detach", "--json"]))
            }
            State::Reverting => Some(self.verb(&["revert", "d", &self.snapshot])),
            State::Ended => {
                self.vmms[0].json(&["stop", "d", "--json"]).unwrap();
                None
            }
            State::Booting | State::Running | State::Loading | State::Restoring => None,
        };
        if let (Some(point), Some(_)) = (at, &operation) {
            held(&vm, point);
        }
        if state == State::HandedOver {
            destination.wait_for_line("here now", TIMEOUT).unwrap();
            self.until("the VM is handed over", || {
                self.stats(0).is_some_and(|stats| stats["handed_to"].is_string())
            });
        }
        Scene { vm, operation, destination, passes }
    }

    /// The answer to a request of the VM at the source.
    pub fn ask(&self, request: &str) -> Value {
        self.try_ask(request).unwrap_or_else(|| panic!("no answer to {request}"))
    }

    /// The same; `None` if there is none in time.
    pub fn try_ask(&self, request: &str) -> Option<Value> {
        let runtime = self.vmms[0].identity();
        let socket = runtime.with_file_name("vmm-lite").join("d.sock");
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Whether the VM at the source has ended and answers no more, though its process waits for a
    /// held thread.
    fn is_silent(&self) -> bool {
        let runtime = self.vmms[0].identity();
        let socket = runtime.with_file_name("vmm-lite").join("d.sock");
        let Ok(mut stream) = UnixStream::connect(socket) else { return true };
        stream.set_read_timeout(Some(20 * LOOK)).unwrap();
        let asked = stream.write_all(b"{\"verb\":\"stats\"}\n");
        let mut line = String::new();
        let answered = BufReader::new(stream).read_line(&mut line);
        asked.is_err()
            || answered.is_err()
            || line.is_empty()
            || line.contains(r#""state":"ended""#)
    }

    /// The stats of the VM of a host.
    fn stats(&self, host: usize) -> Option<Value> {
        self.vmms[host].json(&["stats", "d", "--json"]).ok()
    }

    fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !so() {
            assert!(Instant::now() < end, "{what}: {:?}", [self.stats(0), self.stats(1)]);
            std::thread::sleep(LOOK);
        }
    }
}

/// Waits until a thread of the VM's process is held.
pub fn held(vm: &Process, point: &str) {
    vm.wait_for_line(&format!("fail point {point}: Hold"), TIMEOUT).unwrap();
}

fn is_whole(vm: &Process) {
    let line = vm.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}
