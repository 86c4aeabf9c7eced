//! Two hosts, a client, and one move with a failure in it.

use crate::table::{
    Case,
    Side::{self, Destination, Source},
};
use nix::{
    sys::{
        signal::Signal,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use testkit::client::{Client, PORT as GUEST_PORT, Talk};
use vmm::fail_point::{Action, CHOICE, TIMEOUT as SILENCE};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

const PORT: u16 = 7000;
/// How long a destination accepts the silence of a source that is frozen before its commit. The
/// other timeouts are the usual ones, as a busy host may delay messages.
const SHORT: &str = "2s";

/// A fixture where moves take place one after the other.
pub struct Fixture {
    site: Site,
    vmms: [Vmm; 2],
    store: PathBuf,
    memory: PathBuf,
}

impl Fixture {
    pub fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        site.hosts[1].tap("tap1").unwrap();
        let vmms = Vmm::on_both(&site).unwrap();
        Some(Self { site, vmms, store: image("kv").unwrap(), memory: image("dirtier").unwrap() })
    }

    /// `vmm-lite`, with these fail points chosen for its process.
    fn command(&self, side: Side, args: &[&str], choice: &str) -> Command {
        let mut command = self.vmms[side as usize].command(args).unwrap();
        if !choice.is_empty() {
            command.env(CHOICE, choice);
        }
        command
    }

    /// A VM at the source, and a client of it.
    fn run(&self, case: &Case) -> (Process, Client) {
        let image = if case.hybrid { &self.memory } else { &self.store };
        let port = GUEST_PORT.to_string();
        let args = ["run", image.to_str().unwrap(), "--name", "d", "--memory", "16M"];
        let net = ["--tap", "tap0", "--ip", "10.0.0.2/24", "--", "--port", &port];
        let own = if case.hybrid { &["--pages", "256", "--quiet"][..] } else { &[] };
        let args = [&args[..], &net, own].concat();
        let vm = Process::start(self.command(Source, &args, &case.choice(Source))).unwrap();
        let talk = if case.hybrid {
            Talk::Memory { nonce: None, written: 0 }
        } else {
            Talk::Store { count: 0 }
        };
        (vm, Client::start(&self.site.client, talk))
    }

    /// A destination. The second one of a host has another port, another TAP, and another name for
    /// the VM.
    fn receive(&self, case: &Case, second: bool, choice: &str) -> Process {
        let url = self.url(second);
        let tap = if second { "tap1" } else { "tap0" };
        let mut args = vec!["receive", "--listen", &url, "--tap", tap];
        args.extend(["--lost-after", case.lost_after()]);
        args.extend(case.transport());
        args.extend(if second { &["--name", "d2"][..] } else { &[] });
        let mut command = self.command(Destination, &args, choice);
        if case.action == Action::Stop && case.row.side == Source {
            command.env(SILENCE, SHORT);
        }
        let process = Process::start(command).unwrap();
        process.wait_for_line("listening", TIMEOUT).unwrap();
        process
    }

    fn url(&self, second: bool) -> String {
        self.vmms[1].url(PORT + u16::from(second))
    }

    /// Sends the VM `name` of a host a request; `None` if there is no such VM.
    fn ask(&self, side: Side, name: &str, verb: &str) -> Option<serde_json::Value> {
        let runtime = self.vmms[side as usize].identity();
        let socket = runtime.with_file_name("vmm-lite").join(format!("{name}.sock"));
        let mut stream = UnixStream::connect(socket).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(format!("{{\"verb\":\"{verb}\"}}\n").as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    fn runs(&self, side: Side, name: &str) -> bool {
        self.ask(side, name, "stats").is_some_and(|answer| answer["ok"]["state"] == "running")
    }
}

/// A move with a failure in it.
pub struct Attempt<'l> {
    pub fixture: &'l Fixture,
    pub case: Case,
    pub source: Process,
    pub destination: Process,
    pub migrate: Process,
    pub client: Client,
    /// The side whose process is frozen.
    frozen: Option<Side>,
}

impl<'l> Attempt<'l> {
    /// Begins it; returns after the failure.
    pub fn begin(fixture: &'l Fixture, case: Case) -> Self {
        let destination = fixture.receive(&case, false, &case.choice(Destination));
        let (source, client) = fixture.run(&case);
        let url = fixture.url(false);
        let mut args = vec!["migrate", "d", &url, "--mode", case.mode()];
        args.extend(case.transport());
        if case.hybrid {
            // A round of a tenth of a second, in which the guest writes to all of its pages,
            // however busy the host is: these are left for post-copy.
            args.extend(["--bandwidth", "20MB"]);
        }
        let migrate = Process::start(fixture.vmms[0].command(&args).unwrap()).unwrap();
        let this = Self { fixture, case, source, destination, migrate, client, frozen: None };
        let line = format!("fail point {}: {:?}", case.row.point, case.action);
        this.process(case.row.side).wait_for_line(&line, TIMEOUT).unwrap_or_else(|_| {
            panic!("{case}: no process reached it\n{}", this.said());
        });
        this
    }

    pub fn process(&self, side: Side) -> &Process {
        match side {
            Source => &self.source,
            Destination => &self.destination,
        }
    }

    /// The output of all processes.
    pub fn said(&self) -> String {
        let Self { source, destination, migrate, .. } = self;
        format!(
            "source:\n{}\ndestination:\n{}\nmigrate:\n{}",
            source.output(),
            destination.output(),
            migrate.output()
        )
    }

    /// Waits until the process that is to freeze has stopped.
    pub fn freezes(&mut self) {
        let side = self.case.row.side;
        let id = Id::Pid(Pid::from_raw(self.process(side).pid().cast_signed()));
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        let status = waitid(id, flags).unwrap();
        let stands = matches!(status, WaitStatus::Stopped(_, Signal::SIGSTOP));
        assert!(stands, "{}: {status:?}", self.case);
        self.frozen = Some(side);
    }

    pub fn thaw(&mut self) {
        let side = self.frozen.take().expect("it is frozen");
        self.process(side).signal(Signal::SIGCONT).unwrap();
    }

    /// Whether the VM runs on a side. A frozen process is not queried, as it does not answer.
    pub fn runs(&self, side: Side) -> bool {
        self.frozen != Some(side) && self.fixture.runs(side, "d")
    }

    /// Waits until `so` is true, and checks that never two VMs run meanwhile.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !so(self) {
            let (here, there) = (self.runs(Source), self.runs(Destination));
            assert!(!(here && there), "{}: two run\n{}", self.case, self.said());
            let late = Instant::now() >= end;
            assert!(!late, "{}: {what}: runs: {here}, {there}\n{}", self.case, self.said());
            // Leaves the CPU to the processes under test.
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until a side has printed this that many times.
    #[track_caller]
    pub fn says(&mut self, side: Side, times: usize, words: &[&str]) {
        self.until(&format!("{side:?} says {words:?}"), |this| {
            let said = this.process(side).output();
            words.iter().map(|words| said.matches(words).count()).sum::<usize>() >= times
        });
    }

    /// How the verb ended, if it has.
    pub fn moved(&mut self) -> Option<bool> {
        if self.migrate.is_running() {
            return None;
        }
        Some(self.migrate.wait(TIMEOUT).unwrap().success())
    }

    /// The VM runs on this side and on no other, as its client sees.
    #[track_caller]
    pub fn lives(&mut self, side: Side) {
        let what = self.case.to_string();
        self.until("the VM runs", |this| this.runs(side));
        self.client.hears(&what);
        let other = if side == Source { Destination } else { Source };
        assert!(!self.runs(other), "{what}: two run\n{}", self.said());
    }

    /// It left the source.
    pub fn has_moved(&mut self) {
        self.lives(Destination);
        let ended = self.source.wait(TIMEOUT);
        let well = ended.is_ok_and(|status| status.success());
        assert!(well, "{}: the source does not end\n{}", self.case, self.said());
    }

    /// It does not run at the source, and no verb can make it.
    pub fn cannot_run_here(&mut self) {
        let answer = self.fixture.ask(Source, "d", "resume");
        let refused = answer.as_ref().is_some_and(|a| a.get("error").is_some());
        assert!(refused, "{}: {answer:?}\n{}", self.case, self.said());
        assert!(!self.runs(Source), "{}: it runs\n{}", self.case, self.said());
    }

    /// The next try succeeds, whatever the result of this one: to the same process if that still
    /// runs.
    pub fn tries_again(&mut self) {
        if self.case.row.side == Destination && !self.destination.is_running() {
            self.destination = self.fixture.receive(&self.case, false, "");
        }
        let url = self.fixture.url(false);
        self.move_to(&url);
        self.has_moved();
    }

    /// Moves the VM to another process while the first destination is frozen.
    pub fn goes_elsewhere(&mut self) {
        let elsewhere = self.fixture.receive(&self.case, true, "");
        let url = self.fixture.url(true);
        self.move_to(&url);
        assert!(self.source.wait(TIMEOUT).unwrap().success(), "{}", self.said());
        self.client.hears("the VM is elsewhere");
        self.thaw();
        self.says(Destination, 1, &["did not arrive"]);
        assert!(!self.runs(Destination), "{}: two run\n{}", self.case, self.said());
        self.client.hears("the VM is elsewhere still");
        assert!(self.fixture.runs(Destination, "d2"), "{}: {}", self.case, elsewhere.output());
    }

    fn move_to(&mut self, url: &str) {
        let mut args = vec!["migrate", "d", url, "--json", "--mode", self.case.mode()];
        args.extend(self.case.transport());
        let mut said = None;
        // A receiver that has not noticed the end of the last try reports that it is busy.
        self.until("the next try is heard", |this| {
            said = this.fixture.vmms[0].json(&args).err().map(|e| e.to_string());
            said.as_ref().is_none_or(|said| !said.contains("receiving another VM"))
        });
        assert_eq!(said, None, "{}, tried again\n{}", self.case, self.said());
    }
}
