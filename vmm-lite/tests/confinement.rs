//! What a process with a VM has given up: a call that a thread has no business to make kills it, and everything it is for goes on working without.

mod common;

use common::{Elf, TempFile, control, guest, kvm};
use nix::{
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};
use vmm_lite::confine::Thread;
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::{CONSOLE_IN, CONSOLE_OUT},
};
use vmm_lite_lab::{
    images::image,
    probe::Connection,
    process::Process,
    site::Site,
    skipped,
    vmm::{PATIENCE, Vmm},
};

guest!(
    says_hi_and_waits,
    "mov dword ptr [{ring}], 0x0a216968", // "hi!\n"
    "mov dword ptr [{head}], 4",
    "mov edx, {port}",
    "2: mov eax, {bits}",
    "out dx, eax",
    // Exit with the first byte typed as the code.
    "cmp dword ptr [{in_head}], 0",
    "je 2b",
    "movzx eax, byte ptr [{in_ring}]",
    "mov [{code}], eax",
    "mov eax, {exit}",
    "out dx, eax",
    "hlt",
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    in_ring = const CONSOLE_IN as u32,
    in_head = const control!(console_in.head),
    code = const control!(exit_code),
    port = const PORT as u32,
    bits = const Doorbell::CONSOLE.0 | Doorbell::WAIT.0,
    exit = const Doorbell::EXIT.0,
);

/// A process with every kind of thread that it can have.
struct Confined {
    child: Child,
    dir: PathBuf,
    /// Whatever keeps its threads alive.
    _clients: Vec<Client>,
    _image: Option<TempFile>,
}

enum Client {
    Unix { _kept: UnixStream },
    Tcp { _kept: TcpStream },
}

impl Confined {
    fn command(dir: &PathBuf, args: &[&str]) -> Command {
        fs::create_dir_all(dir).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-lite"));
        command.args(args).env("XDG_RUNTIME_DIR", dir).env_remove("RUST_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn dir() -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, Relaxed);
        std::env::temp_dir().join(format!("vmm-lite-confined-{}-{n}", std::process::id()))
    }

    fn run() -> Self {
        let (dir, image) = (Self::dir(), Elf::of(says_hi_and_waits()).file());
        let path = image.path().to_str().unwrap();
        let metrics = format!("unix:{}", dir.join("metrics").display());
        let args = ["run", path, "--name", "kv", "--memory", "2M", "--metrics", &metrics];
        let mut child = Self::command(&dir, &args).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "hi!\n");
        let socket = dir.join("vmm-lite/kv.sock");
        let idle = UnixStream::connect(&socket).unwrap();
        let mut console = UnixStream::connect(&socket).unwrap();
        console.write_all(b"{\"verb\":\"console\"}\n").unwrap();
        let clients = vec![Client::Unix { _kept: idle }, Client::Unix { _kept: console }];
        Self { child, dir, _clients: clients, _image: Some(image) }
    }

    fn receive() -> Self {
        let dir = Self::dir();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listen = format!("tcp://{free}");
        let mut child =
            Self::command(&dir, &["receive", "--plaintext", "--listen", &listen]).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("listening")));
        let clients = vec![Client::Tcp { _kept: TcpStream::connect(free).unwrap() }];
        Self { child, dir, _clients: clients, _image: None }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The thread of that kind, once it has its filter.
    fn thread(&self, kind: Thread) -> Pid {
        // Each filter comes on top of those of the thread that started it.
        let filters = match kind {
            Thread::Main | Thread::Vcpu | Thread::Accept | Thread::Metrics => 1,
            Thread::Stdin | Thread::Control | Thread::Receive => 2,
            Thread::ConsoleIn => 3,
        };
        let deadline = Instant::now() + PATIENCE;
        loop {
            for task in fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap() {
                let path = task.unwrap().path();
                let tid = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
                let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
                let status = fields(&status);
                let name = if kind == Thread::Main { "vmm-lite" } else { kind.name() };
                if status["Name"] == name && status["Seccomp_filters"] == filters.to_string() {
                    return Pid::from_raw(tid);
                }
            }
            assert!(Instant::now() < deadline, "no confined thread {}", kind.name());
            std::thread::yield_now();
        }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// The lines of a `/proc/PID/status`.
fn fields(status: &str) -> BTreeMap<&str, &str> {
    status.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k, v.trim())).collect()
}

/// Stops a thread that waits in a system call and has it make another one instead, as one would that a guest has got hold of.
/// The registers of before are returned.
fn put_call(thread: Pid, call: i64, args: [u64; 3]) -> libc::user_regs_struct {
    let deadline = Instant::now() + PATIENCE;
    ptrace::seize(thread, ptrace::Options::empty()).unwrap();
    loop {
        ptrace::interrupt(thread).unwrap();
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(matches!(stopped, WaitStatus::PtraceEvent(..)), "{stopped:?}");
        let before = ptrace::getregs(thread).unwrap();
        if before.orig_rax != u64::MAX {
            let [rdi, rsi, rdx] = args;
            let rax = call.cast_unsigned();
            // The instruction behind which it is stopped is the system call's, two bytes long.
            let rip = before.rip - 2;
            let regs =
                libc::user_regs_struct { rip, rax, orig_rax: u64::MAX, rdi, rsi, rdx, ..before };
            ptrace::setregs(thread, regs).unwrap();
            return before;
        }
        // It was between two calls.
        assert!(Instant::now() < deadline, "the thread makes no calls");
        ptrace::cont(thread, None).unwrap();
    }
}

/// The kinds of thread, and for each a call that others may make, so that it is the thread's own filter which forbids it.
fn forbidden() -> Vec<(Thread, i64, [u64; 3])> {
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    let fork = [libc::SIGCHLD as u64, 0, 0];
    let executable = [0, 4096, (libc::PROT_READ | libc::PROT_EXEC) as u64];
    let mut all = vec![
        (Thread::Main, libc::SYS_clone, fork),
        (Thread::Main, libc::SYS_openat, [0; 3]),
        (Thread::Vcpu, libc::SYS_socket, inet),
        (Thread::Vcpu, libc::SYS_mmap, executable),
        (Thread::Stdin, libc::SYS_ioctl, [0, 0xae80, 0]),
        (Thread::Control, libc::SYS_openat, [0; 3]),
        (Thread::Control, libc::SYS_socket, [libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0]),
        (Thread::ConsoleIn, libc::SYS_socket, inet),
        (Thread::Metrics, libc::SYS_openat, [0; 3]),
        (Thread::Accept, libc::SYS_clone, fork),
        (Thread::Receive, libc::SYS_socket, inet),
        (Thread::Receive, libc::SYS_ioctl, [0, libc::TIOCSTI, 0]),
    ];
    // What nobody may do.
    all.extend([
        (Thread::Main, libc::SYS_execve, [0; 3]),
        (Thread::Vcpu, libc::SYS_execve, [0; 3]),
        (Thread::Stdin, libc::SYS_setuid, [0; 3]),
        (Thread::Control, libc::SYS_ptrace, [0; 3]),
        (Thread::ConsoleIn, libc::SYS_mount, [0; 3]),
        (Thread::Accept, libc::SYS_bpf, [0; 3]),
        (Thread::Receive, libc::SYS_execveat, [0; 3]),
    ]);
    all
}

fn with_thread(kind: Thread) -> Confined {
    match kind {
        Thread::Accept | Thread::Receive => Confined::receive(),
        _ => Confined::run(),
    }
}

#[test]
fn a_forbidden_call_kills_the_process_whichever_thread_makes_it() {
    if !kvm() {
        return;
    }
    for (kind, call, args) in forbidden() {
        let mut process = with_thread(kind);
        let thread = process.thread(kind);
        put_call(thread, call, args);
        ptrace::cont(thread, None).unwrap();
        if thread != process.pid() {
            let ended = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
            let killed = matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _));
            assert!(killed, "{kind:?}, call {call}: {ended:?}");
        }
        let status = process.child.wait().unwrap();
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{kind:?}, call {call}: {status}");
    }
}

#[test]
fn what_kills_is_the_call_and_not_the_way_it_is_made() {
    if !kvm() {
        return;
    }
    for kind in Thread::ALL {
        let process = with_thread(kind);
        let thread = process.thread(kind);
        let before = put_call(thread, libc::SYS_getpid, [0; 3]);
        ptrace::step(thread, None).unwrap();
        let stopped = waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        assert!(
            matches!(stopped, WaitStatus::Stopped(_, Signal::SIGTRAP)),
            "{kind:?}: {stopped:?}"
        );
        let pid = u64::from(process.child.id());
        assert_eq!(ptrace::getregs(thread).unwrap().rax, pid, "{kind:?}");
        ptrace::setregs(thread, before).unwrap();
        ptrace::detach(thread, None).unwrap();
    }
}

#[test]
fn a_call_that_is_missing_is_named() {
    if !kvm() {
        return;
    }
    let (dir, image) = (Confined::dir(), Elf::of(says_hi_and_waits()).file());
    let path = image.path().to_str().unwrap();
    let args = ["run", path, "--name", "kv", "--memory", "2M", "--seccomp", "trap"];
    let mut child = Confined::command(&dir, &args).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let mut process = Confined { child, dir, _clients: Vec::new(), _image: Some(image) };
    let thread = process.thread(Thread::Vcpu);
    put_call(thread, libc::SYS_socket, [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0]);
    ptrace::detach(thread, None).unwrap();
    line.clear();
    BufReader::new(process.child.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("thread vcpu made the system call socket (41; 0x2, 0x1, 0x0)"), "{line}");
    assert_eq!(process.child.wait().unwrap().signal(), Some(libc::SIGSYS));
}

/// Rights that a thread of a process still has.
fn rights_left(pid: u32, uid: u32, gid: u32) -> Vec<String> {
    let mut left = Vec::new();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = limits.lines().find_map(|l| l.strip_prefix("Max realtime priority")).unwrap();
    // Without a limit for it, real-time priority takes a capability, in those threads that ask for it.
    let may_nice = limit.trim_start().starts_with('0');
    const CAP_SYS_NICE: &str = "0000000000800000";
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let status = fields(&status);
        let of = |n: u32| [n.to_string(), n.to_string(), n.to_string(), n.to_string()].join("\t");
        let no_capabilities = "0".repeat(16);
        for (field, expected) in [
            ("Uid", of(uid).as_str()),
            ("Gid", &of(gid)),
            ("Groups", ""),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapInh", &no_capabilities),
            ("CapPrm", &no_capabilities),
            ("CapEff", &no_capabilities),
            ("CapBnd", &no_capabilities),
            ("CapAmb", &no_capabilities),
        ] {
            // KVM has a thread of the kernel's own among those of the process.
            let kernel = status["Name"].starts_with("kvm-");
            let nice = may_nice
                && (kernel
                    || ["vmm-lite", "control", "accept", "receive"].contains(&status["Name"]))
                && ["CapPrm", "CapEff"].contains(&field)
                && status[field] == CAP_SYS_NICE;
            if status[field] != expected && !nice {
                left.push(format!("{} {field}: {:?}", status["Name"], status[field]));
            }
        }
    }
    left
}

#[test]
fn root_is_given_up_and_the_verbs_still_reach_the_vm() {
    const TEST: &str = "becoming another user";
    const NOBODY: u32 = 65_534;
    if !nix::unistd::geteuid().is_root() {
        return skipped(TEST, "only root can become another user");
    }
    let Some(Trapped { _site, vmms: [here, there], client }) = Trapped::new(TEST) else { return };
    let user = ["--user", "65534", "--group", "65534", "--seccomp", "trap"];
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let vm = here.run(&image("kv").unwrap(), &[&args[..], &user].concat()).unwrap();
    let guest: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let mut connection = Connection::open_when_up(&client, guest, PATIENCE).unwrap();
    assert_eq!(rights_left(vm.pid(), NOBODY, NOBODY), [""; 0]);
    let unnamed = there.receive(7000, &user).unwrap_err().to_string();
    assert!(unnamed.contains("give the VM's name here too"), "{unnamed}");
    let args = ["--name", "moved", "--tap", "tap0"];
    let next = there.receive(7000, &[&args[..], &user].concat()).unwrap();
    assert_eq!(there.json(&["ps", "--json"]).unwrap(), serde_json::json!([]), "no VM yet");
    let taken = there.receive(7001, &["--name", "moved"]).unwrap_err().to_string();
    assert!(taken.contains("a VM named moved runs already"), "{taken}");
    here.migrate("kv", &there.url(7000)).unwrap();
    assert_eq!(lacking(vm), [""; 0]);
    assert_eq!(connection.request("PING\r\n").unwrap(), "+PONG");
    assert_eq!(rights_left(next.pid(), NOBODY, NOBODY), [""; 0]);
    assert_eq!(there.json(&["stats", "moved", "--json"]).unwrap()["state"], "running");
    there.json(&["stop", "moved", "--json"]).unwrap();
    assert_eq!(lacking(next), [""; 0]);
    // What they could not remove, whoever looks next does.
    for vmm in [&here, &there] {
        assert_eq!(vmm.json(&["ps", "--json"]).unwrap(), serde_json::json!([]));
    }
}

#[test]
fn root_that_stays_root_has_no_capabilities_and_nobody_has_open_files_to_spare() {
    if !kvm() {
        return;
    }
    let file = fs::File::open("/etc/hostname").unwrap();
    // Inherited: not closed on exec.
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let process = Confined::run();
    for kind in [Thread::Main, Thread::Vcpu, Thread::Stdin, Thread::Control, Thread::Metrics] {
        process.thread(kind);
    }
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let mut left = rights_left(process.child.id(), uid.as_raw(), gid.as_raw());
    // Groups are left alone without --user; a user who is not root cannot shrink the set of what others could gain.
    left.retain(|l| !l.contains("Groups") && (uid.is_root() || !l.contains("CapBnd")));
    assert_eq!(left, [""; 0]);
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", process.child.id()))
        .unwrap()
        .map(|fd| fs::read_link(fd.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .collect();
    let image = process._image.as_ref().unwrap().path().to_string_lossy().into_owned();
    let known = |name: &String| {
        *name == image
            // For a state that is tried before it takes the guest's place, and for copies of a guest that runs.
            || ["/dev/kvm", "/dev/userfaultfd"].contains(&name.as_str())
            || ["pipe:", "socket:", "anon_inode:", "/memfd:vmm-lite-guest"]
                .iter()
                .any(|k| name.starts_with(k))
            || name.ends_with("vmm-lite/.lock")
            || name.ends_with("vmm-lite/kv.lock")
    };
    open.retain(|name| !known(name));
    assert_eq!(open, [""; 0], "nothing inherited, nor what is not needed any more");
}

/// Two hosts whose VMs say which system call their filters lack.
struct Trapped {
    _site: Site,
    vmms: [Vmm; 2],
    client: vmm_lite_lab::net::Namespace,
}

impl Trapped {
    fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        Some(Self { client: site.client.clone(), _site: site, vmms })
    }
}

/// Ends a process and returns what it lacked.
fn lacking(mut process: Process) -> Vec<String> {
    process.wait(PATIENCE).unwrap();
    let output = process.output();
    output.lines().filter(|l| l.contains("made the system call")).map(str::to_owned).collect()
}

/// The developer's test: all verbs, with the calls that are missing in the filters named in the end.
#[test]
fn all_verbs_work_with_the_calls_that_are_left() {
    let Some(Trapped { _site, vmms: [here, there], client }) = Trapped::new("all verbs, confined")
    else {
        return;
    };
    let mut missing = Vec::new();
    let kv = image("kv").unwrap();
    let trap = ["--seccomp", "trap"];
    let with = |args: &[&'static str]| [args, &trap[..]].concat();
    // A move there and back, under way the other verbs.
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let mut vm = here.run(&kv, &with(&args)).unwrap();
    let guest: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let mut verbs = Vec::new();
    match Connection::open_when_up(&client, guest, PATIENCE) {
        Ok(mut connection) => {
            for (from, to) in [(&here, &there), (&there, &here)] {
                let mut verb = |args: &[&str]| {
                    if let Err(e) = from.json(args) {
                        verbs.push(format!("{args:?}: {e}"));
                    }
                };
                verb(&["stats", "kv", "--json"]);
                verb(&["ps", "--json"]);
                verb(&["pause", "kv", "--json"]);
                verb(&["resume", "kv", "--json"]);
                verb(&["pause", "kv", "--quiesce", "100", "--json"]);
                verb(&["resume", "kv", "--json"]);
                let next = to.receive(7000, &with(&["--tap", "tap0"])).unwrap();
                from.migrate("kv", &to.url(7999)).unwrap_err();
                verb(&["migrate", "kv", &to.url(7000), "--json"]);
                if let Ok(answer) = connection.request("SET a b\r\n") {
                    assert_eq!(answer, "+OK");
                } else {
                    verbs.push("the client's connection is gone".into());
                }
                missing.extend(lacking(std::mem::replace(&mut vm, next)));
            }
            if let Err(e) = here.json(&["stop", "kv", "--json"]) {
                verbs.push(format!("stop: {e}"));
            }
        }
        Err(e) => verbs.push(e.to_string()),
    }
    missing.extend(lacking(vm));
    // The console, and the ways a program ends.
    let args = ["--name", "d", "--memory", "16M"];
    let args = [&with(&args)[..], &["--", "--pages", "64"]].concat();
    let vm = here.run(&image("dirtier").unwrap(), &args).unwrap();
    vm.wait_for_line("nonce", PATIENCE).unwrap();
    let mut console = Process::start(here.command(&["console", "d"]).unwrap()).unwrap();
    console.stdin().unwrap().write_all(b"to nobody\n").unwrap();
    if let Err(e) = console.wait_for_line("nonce", PATIENCE) {
        verbs.push(format!("console: {e}"));
    }
    let file = std::env::temp_dir().join(format!("vmm-lite-confined-{}.snap", std::process::id()));
    let path = file.to_str().unwrap();
    for args in [
        &["snapshot", "d", path, "--json"][..],
        &["revert", "d", path, "--json"],
        &["fork", "d", "--count", "1", "--detach", "--json"],
        &["stop", "d-1", "--json"],
        &["stop", "d", "--json"],
    ] {
        if let Err(e) = here.json(args) {
            verbs.push(format!("{args:?}: {e}"));
        }
    }
    let _ = fs::remove_file(&file);
    missing.extend(lacking(vm));
    let check = image("std-check").unwrap();
    for way in ["panic", "abort", "overflow", "null"] {
        let args = [&trap[..], &["--", "--die", way]].concat();
        let vm = here.run(&check, &args).unwrap();
        missing.extend(lacking(vm));
    }
    missing.sort();
    missing.dedup();
    assert!(missing.is_empty() && verbs.is_empty(), "missing: {missing:#?}\nverbs: {verbs:#?}");
}
