//! Test bed: VMs without a network, and verbs on them.

use serde_json::Value;
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use vmm::{
    fail_point::{CHOICE, TIMEOUT as SILENCE},
    kvm::Host,
};
use vmm_lite_lab::{
    images::{image, vmm_lite},
    process::Process,
    vmm::TIMEOUT,
};

/// How often a test polls.
const LOOK: Duration = Duration::from_millis(50);
/// The stall limit where a thread is to hang.
const LIMIT: &str = "1s";

/// A directory for the sockets and files of one test.
pub struct Bed {
    /// Processes that end with the test.
    others: Mutex<Vec<Process>>,
    dir: TempDir,
}

impl Bed {
    pub fn new(test: &str) -> Option<Self> {
        if let Err(e) = Host::open() {
            vmm_lite_lab::skipped(test, e);
            return None;
        }
        Some(Self { others: Mutex::default(), dir: tempfile::tempdir().unwrap() })
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(vmm_lite().unwrap());
        command.args(args).env("XDG_RUNTIME_DIR", self.dir.path()).env_remove("RUST_LOG");
        command.stdin(Stdio::null());
        command
    }

    /// A path for a file.
    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Starts a guest that writes its memory all the time.
    fn start(&self, args: &[&str], choice: &str) -> Process {
        let image = image("dirtier").unwrap();
        let run = ["run", image.to_str().unwrap(), "--name", "d", "--memory", "8M"];
        let own = ["--", "--pages", "64"];
        let mut command = self.command(&[&run, args, &own].concat());
        if !choice.is_empty() {
            command.env(CHOICE, choice);
        }
        Process::start(command).unwrap()
    }

    /// The same, and waits until it writes.
    pub fn busy(&self, args: &[&str], choice: &str) -> Process {
        let vm = self.start(args, choice);
        vm.wait_for_line("passes=", TIMEOUT).unwrap();
        vm
    }

    /// The same, with a short stall limit, and its metrics served.
    pub fn run(&self, choice: &str) -> Process {
        let metrics = format!("unix:{}", self.file("metrics"));
        self.busy(&["--watchdog", LIMIT, "--metrics", &metrics], choice)
    }

    /// The same, which may never start to run.
    pub fn begin(&self, choice: &str) -> Process {
        self.start(&["--watchdog", LIMIT], choice)
    }

    /// The same VM, restored lazily.
    pub fn restore_lazily(&self, choice: &str) -> Process {
        let snapshot = self.file("base.snap");
        let mut vm = self.run("");
        self.json(&["snapshot", "d", &snapshot, "--stop", "--json"]);
        vm.wait(TIMEOUT).unwrap();
        let mut command = self.command(&["restore", &snapshot, "--lazy", "--watchdog", LIMIT]);
        command.env(CHOICE, choice);
        Process::start(command).unwrap()
    }

    /// Begins to move it to another process, which ends with it.
    pub fn migrate(&self) -> Process {
        let port = vmm_lite_lab::unused::address().port();
        let url = format!("tcp://127.0.0.1:{port}");
        let there = self.dir.path().join("there");
        std::fs::create_dir_all(&there).unwrap();
        let mut receive = self.command(&["receive", "--listen", &url, "--plaintext"]);
        // The source is held for longer than it may usually be silent.
        receive.env("XDG_RUNTIME_DIR", &there).env(SILENCE, "60s");
        let receive = Process::start(receive).unwrap();
        receive.wait_for_line("listening", TIMEOUT).unwrap();
        self.others.lock().unwrap().push(receive);
        self.verb(&["migrate", "d", &url, "--plaintext"])
    }

    pub fn verb(&self, args: &[&str]) -> Process {
        Process::start(self.command(args)).unwrap()
    }

    /// The output of a verb that succeeds.
    pub fn text(&self, args: &[&str]) -> String {
        let out = self.command(args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(args)).unwrap()
    }

    /// Its metrics, as they are served to a scraper.
    pub fn scrape(&self) -> String {
        let mut stream = UnixStream::connect(self.file("metrics")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until the guest makes progress and no thread stalls, and ends it. Resumes a paused VM,
    /// and follows a VM that has moved.
    pub fn goes_on(&self) {
        let end = Instant::now() + TIMEOUT;
        let exits = |stats: &Value| stats["exits"]["doorbell"].as_u64().unwrap_or(0);
        let there = self.dir.path().join("there");
        let ask = |verb: &str| {
            let mut command = self.command(&[verb, "d", "--json"]);
            if there.exists() {
                command.env("XDG_RUNTIME_DIR", &there);
            }
            let out = command.output().unwrap();
            serde_json::from_slice::<Value>(&out.stdout).unwrap_or_default()
        };
        ask("resume");
        let first = ask("stats");
        loop {
            let stats = ask("stats");
            let got_on = stats["state"] == "running" && exits(&stats) > exits(&first);
            if got_on && stats["stalled"].as_array().is_some_and(Vec::is_empty) {
                break;
            }
            assert!(Instant::now() < end, "{stats}");
            std::thread::sleep(LOOK);
        }
        ask("stop");
    }
}
