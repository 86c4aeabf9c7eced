//! Processes with VMs whose guest is a few instructions.

use nix::unistd::Pid;
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};
use testkit::{
    greeting::greets_and_obeys,
    guest::{Elf, TempFile},
};
use vmm::host::confine::Thread;
use vmm_lite_lab::vmm::TIMEOUT;

/// A process with every kind of thread that it can have.
pub struct Confined {
    pub child: Child,
    /// The VM's process, which may be a grandchild.
    pub pid: Pid,
    dir: PathBuf,
    /// Clients that keep its threads alive.
    clients: Vec<Client>,
    image: Option<TempFile>,
}

/// The guest's image.
pub fn image() -> TempFile {
    Elf { own_clock: Some((0, "")), ..Elf::of(greets_and_obeys()) }.file()
}

/// How a VM is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    Run,
    /// With a journal.
    Journaled,
    Receive,
    Restored,
    Lazily,
    Forked,
    /// From a file, by a process that starts several.
    Counted,
}

pub const COPIES: [Origin; 4] = [Origin::Restored, Origin::Lazily, Origin::Forked, Origin::Counted];

enum Client {
    Unix { _kept: UnixStream },
    Tcp { _kept: TcpStream },
}

impl Confined {
    pub fn command(dir: &PathBuf, args: &[&str]) -> Command {
        fs::create_dir_all(dir).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-lite"));
        command.args(args).env("XDG_RUNTIME_DIR", dir).env_remove("RUST_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn dir() -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Relaxed);
        std::env::temp_dir().join(format!("vmm-lite-confined-{}-{n}", std::process::id()))
    }

    /// A process started as `origin` says, with `args`.
    pub fn with(origin: Origin, args: &[&str]) -> Self {
        match origin {
            Origin::Run => Self::run(args),
            Origin::Journaled => {
                let dir = Self::dir();
                let journal = dir.join("journal").to_str().unwrap().to_owned();
                Self::run_in(dir, &[&["--journal", &journal], args].concat())
            }
            Origin::Receive => Self::receive(),
            Origin::Restored => Self::restored(args),
            Origin::Lazily => Self::restored(&[&["--lazy"], args].concat()),
            Origin::Forked | Origin::Counted => Self::cloned(origin, args),
        }
    }

    fn run(args: &[&str]) -> Self {
        Self::run_in(Self::dir(), args)
    }

    fn run_in(dir: PathBuf, args: &[&str]) -> Self {
        let image = image();
        let path = image.path().to_str().unwrap();
        let metrics = format!("unix:{}", dir.join("metrics").display());
        let run = ["run", path, "--name", "kv", "--memory", "2M", "--metrics", &metrics];
        let mut child = Self::command(&dir, &[&run, args].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "hi!\n");
        let pid = Pid::from_raw(child.id().cast_signed());
        let mut this = Self { child, pid, dir, clients: Vec::new(), image: Some(image) };
        this.attach("kv");
        this
    }

    fn receive() -> Self {
        let dir = Self::dir();
        let free = vmm_lite_lab::unused::address();
        let listen = format!("tcp://{free}");
        let mut child =
            Self::command(&dir, &["receive", "--plaintext", "--listen", &listen]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening")));
        let clients = vec![Client::Tcp { _kept: TcpStream::connect(free).unwrap() }];
        let pid = Pid::from_raw(child.id().cast_signed());
        Self { child, pid, dir, clients, image: None }
    }

    /// A snapshot of [`run`](Self::run)'s VM, which has ended; the rest of the process remains.
    pub fn saved() -> (Self, String) {
        let mut this = Self::run(&[]);
        let file = this.dir.join("kv.snap").to_str().unwrap().to_owned();
        this.verb(&["snapshot", "kv", &file]);
        this.child.kill().unwrap();
        this.child.wait().unwrap();
        this.clients.clear();
        (this, file)
    }

    fn restored(args: &[&str]) -> Self {
        let (mut this, file) = Self::saved();
        this.child =
            Self::command(&this.dir, &[&["restore", &file], args].concat()).spawn().unwrap();
        this.pid = Pid::from_raw(this.child.id().cast_signed());
        this.thread(Thread::Main);
        this.attach("kv");
        this
    }

    /// `restore --lazy` of a file that [`saved`](Self::saved) has made, not started.
    pub fn restore_lazily(&self, file: &str) -> Command {
        Self::command(&self.dir, &["restore", file, "--lazy"])
    }

    /// The VM is the only clone; the child process has started it.
    fn cloned(origin: Origin, args: &[&str]) -> Self {
        let (mut this, from) = match origin {
            Origin::Forked => (Self::run(&[]), "kv".to_owned()),
            _ => Self::saved(),
        };
        let verb = if origin == Origin::Forked { "fork" } else { "restore" };
        let verb = [verb, &from, "--count", "1", "--json"];
        let mut child = Self::command(&this.dir, &[&verb, args].concat()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let report: serde_json::Value = serde_json::from_str(&line).unwrap();
        this.pid = Pid::from_raw(report["clones"][0]["pid"].as_i64().unwrap() as i32);
        let mut parent = std::mem::replace(&mut this.child, child);
        // A parent from which only the file is needed has ended.
        parent.kill().unwrap();
        parent.wait().unwrap();
        this.clients.clear();
        this.attach("kv-1");
        this
    }

    fn verb(&self, args: &[&str]) {
        let out = Self::command(&self.dir, args).output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// A client that sends nothing, and one that reads the console.
    fn attach(&mut self, name: &str) {
        let socket = self.dir.join(format!("vmm-lite/{name}.sock"));
        let idle = UnixStream::connect(&socket).unwrap();
        let mut console = UnixStream::connect(&socket).unwrap();
        console.write_all(b"{\"verb\":\"console\"}\n").unwrap();
        self.clients.extend([Client::Unix { _kept: idle }, Client::Unix { _kept: console }]);
    }

    /// What its descriptors refer to, without those that every VM needs.
    pub fn open_files(&self) -> Vec<String> {
        let image = self.image.as_ref().map(|image| image.path().to_string_lossy().into_owned());
        let known = |name: &String| {
            Some(name) == image.as_ref()
                // For a state that is tried before the guest takes it, and for copies of a running
                // guest.
                || ["/dev/kvm", "/dev/userfaultfd", "/dev/null"].contains(&name.as_str())
                || ["pipe:", "socket:", "anon_inode:", "/memfd:vmm-lite-guest"]
                    .iter()
                    .any(|k| name.starts_with(k))
                || [".lock", "kv.lock", "kv-1.lock"]
                    .iter()
                    .any(|lock| name.ends_with(&format!("vmm-lite/{lock}")))
        };
        fs::read_dir(format!("/proc/{}/fd", self.pid))
            .unwrap()
            .map(|fd| fs::read_link(fd.unwrap().path()).unwrap().to_string_lossy().into_owned())
            .filter(|name| !known(name))
            .collect()
    }

    /// Waits until there is no thread of that kind any more.
    pub fn without(&self, kind: Thread) {
        let deadline = Instant::now() + TIMEOUT;
        let is = |name: String| name.trim_end() == kind.name();
        let tasks = || fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
        while tasks()
            .any(|task| fs::read_to_string(task.unwrap().path().join("comm")).is_ok_and(is))
        {
            assert!(Instant::now() < deadline, "thread {} does not end", kind.name());
            std::thread::yield_now();
        }
    }

    /// The thread of that kind, once it has its filter.
    pub fn thread(&self, kind: Thread) -> Pid {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            for task in fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap() {
                let path = task.unwrap().path();
                let tid = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
                let status = fields(&status);
                let name = if kind == Thread::Main { "vmm-lite" } else { kind.name() };
                if status["Name"] == name && status["Seccomp_filters"] == filters(kind).to_string()
                {
                    return Pid::from_raw(tid);
                }
            }
            assert!(Instant::now() < deadline, "no confined thread {}", kind.name());
            std::thread::yield_now();
        }
    }
}

/// A `receive` with an identity, and its signer.
pub fn signing() -> (Confined, Pid) {
    let dir = Confined::dir();
    let id = dir.join("identity");
    let id = id.to_str().unwrap().to_owned();
    let init = Confined::command(&dir, &["identity", "init", "--identity", &id]).output().unwrap();
    assert!(init.status.success());
    let args = ["receive", "--listen", "tcp://127.0.0.1:0", "--identity", &id];
    let mut child = Confined::command(&dir, &args).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("listening")));
    let is = |pid: &i32| {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let own = String::from_utf8_lossy(&read("cmdline")).contains(&id);
        own && read("comm") == b"vmm-lite-signer\n"
    };
    let all = fs::read_dir("/proc").unwrap();
    let mut all = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let signer = Pid::from_raw(all.find(is).expect("a signer"));
    let pid = Pid::from_raw(child.id().cast_signed());
    (Confined { child, pid, dir, clients: Vec::new(), image: None }, signer)
}

/// The minimum number of filters of a thread of that kind, including its own, which it installs
/// last: each comes on top of those of the thread that started it.
pub fn filters(kind: Thread) -> u32 {
    match kind {
        Thread::Main
        | Thread::Vcpu
        | Thread::Accept
        | Thread::Metrics
        | Thread::Loader
        | Thread::Announce
        | Thread::Signer
        | Thread::Journal
        | Thread::Replay
        | Thread::Snapshots
        | Thread::Connector
        | Thread::Packets => 1,
        Thread::Stdin | Thread::Control | Thread::Receive | Thread::Watchdog => 2,
        Thread::ConsoleIn | Thread::Arrived | Thread::Replication => 3,
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        // Clones end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The fields of a `/proc/PID/status`.
pub fn fields(status: &str) -> BTreeMap<&str, &str> {
    status.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k, v.trim())).collect()
}
