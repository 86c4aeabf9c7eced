//! VMs are saved, come back, are put back and multiply: real images, real clients, and files that are damaged or find no room.

use serde_json::Value;
use std::{
    collections::HashSet,
    net::SocketAddr,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};
use vmm_lite_lab::{
    images::image,
    probe::{Connection, Probe},
    process::Process,
    redis,
    site::Site,
    skipped,
    vmm::{PATIENCE, Vmm},
};

/// A host with a client and an image, and a directory, or the reason why not, said aloud.
struct Lab {
    site: Site,
    vmm: Vmm,
    image: PathBuf,
    dir: tempfile::TempDir,
}

impl Lab {
    fn new(test: &str, app: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmm = Vmm::on(&site.hosts[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        Some(Self { site, vmm, image: image(app).unwrap(), dir })
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.dir.path()).unwrap().count()
    }

    /// Runs a verb that succeeds with JSON.
    fn json(&self, args: &[&str]) -> Value {
        self.vmm.json(args).unwrap_or_else(|e| panic!("{args:?}: {e}"))
    }

    /// What a verb says that fails.
    fn said(&self, args: &[&str]) -> String {
        let out = self.vmm.command(args).unwrap().output().unwrap();
        assert!(!out.status.success(), "{args:?} succeeds");
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    fn start(&self, args: &[&str]) -> Process {
        Process::start(self.vmm.command(args).unwrap()).unwrap()
    }

    fn snapshot(&self, name: &str, file: &str) -> Value {
        self.json(&["snapshot", name, file, "--json"])
    }

    fn stop(&self, name: &str, mut vm: Process) {
        self.json(&["stop", name, "--json"]);
        vm.wait(PATIENCE).unwrap();
    }

    fn dirtier(&self) -> Process {
        let args = ["--name", "d", "--memory", "16M", "--", "--pages", "1024"];
        let vm = self.vmm.run(&self.image, &args).unwrap();
        vm.wait_for_line("nonce", PATIENCE).unwrap();
        vm
    }

    fn kv(&self) -> Process {
        let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
        self.vmm.run(&self.image, &args).unwrap()
    }

    fn client(&self, address: &str) -> Connection {
        let address: SocketAddr = address.parse().unwrap();
        Connection::open_when_up(&self.site.client, address, PATIENCE).unwrap()
    }
}

const KV: &str = "10.0.0.2:6379";

/// Lets dirtier print, which it does once a second, and checks what it says.
fn dirtier_is_whole(vm: &Process) {
    let line = vm.wait_for_line("passes=", PATIENCE).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}

fn info(connection: &mut Connection, field: &str) -> String {
    let info = connection.bulk("INFO vmm\r\n").unwrap().unwrap();
    let line = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field} in {info}")).to_owned()
}

/// The wall clock of a store is right at once, and its monotonic clock did not go back to before `since`. The time since it was started, by that one.
#[track_caller]
fn clocks_are_right(connection: &mut Connection, since: Duration) -> Duration {
    let number = |text: &str, field: &str| -> u64 {
        let value = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in {text}")).trim().parse().unwrap()
    };
    let before = std::time::UNIX_EPOCH.elapsed().unwrap();
    let server = connection.bulk("INFO server\r\n").unwrap().unwrap();
    let after = std::time::UNIX_EPOCH.elapsed().unwrap();
    let there = Duration::from_micros(number(&server, "server_time_usec"));
    let off = Duration::from_secs(1);
    assert!(there + off >= before && there <= after + off, "{there:?} there, {before:?} here");
    let up = connection.bulk("INFO vmm\r\n").unwrap().unwrap();
    let up = Duration::from_millis(number(&up, "uptime_ms"));
    assert!(up >= since, "the clock went back: {up:?} after {since:?}");
    up
}

#[test]
fn memory_that_is_being_written_is_saved_whole() {
    let Some(lab) = Lab::new("snapshots of dirtier", "dirtier") else { return };
    let vm = lab.dirtier();
    let file = lab.file("d.snap");
    for _ in 0..5 {
        let report = lab.snapshot("d", &file);
        let phases: u64 =
            report["phases"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
        assert_eq!(report["pause_ns"].as_u64().unwrap(), phases, "{report}");
        assert!(report["pages_saved"].as_u64().unwrap() > 1024, "{report}");
        assert_eq!(lab.files(), 1, "one name, one file");
    }
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
    let inspected = lab.json(&["inspect", &file, "--json"]);
    assert_eq!((inspected["name"].as_str(), inspected["base"].as_str()), (Some("d"), None));
    // The same file, again and again, either way.
    for how in [&[][..], &["--lazy"], &[]] {
        let vm = lab.start(&[&["restore", &file], how].concat());
        dirtier_is_whole(&vm);
        lab.stop("d", vm);
    }
}

#[test]
fn a_store_is_saved_under_load_and_comes_back_the_same_each_time() {
    const TEST: &str = "snapshots of kv under load";
    let Some(lab) = Lab::new(TEST, "kv") else { return };
    let vm = lab.kv();
    let mut connection = lab.client(KV);
    assert_eq!(connection.request("SET kept 8f1c29\r\n").unwrap(), "+OK");
    let address = KV.parse().unwrap();
    let client = &lab.site.client;
    let load = ["-t", "set,get", "-c", "8", "-r", "100"];
    let mut load = match redis::background_load(client, address, &load) {
        Ok(load) => load,
        Err(e) => return skipped(TEST, e),
    };
    let probe = Probe::start(client, address, "counter", Duration::ZERO).unwrap();
    let file = lab.file("kv.snap");
    for _ in 0..10 {
        lab.snapshot("kv", &file);
    }
    assert!(load.is_running(), "redis-benchmark gave up: {}", load.output());
    drop(load);
    let seen = probe.stop();
    assert!(seen.errors.is_empty(), "{:?}", &seen.errors[..seen.errors.len().min(5)]);
    assert_eq!((seen.reconnects, seen.counter as usize), (0, seen.samples.len()));
    let nonce = info(&mut connection, "nonce");
    let up = clocks_are_right(&mut connection, Duration::ZERO);
    lab.json(&["snapshot", "kv", &file, "--stop", "--json"]);
    let mut vm = vm;
    vm.wait(PATIENCE).unwrap();

    let counter = seen.counter.to_string();
    let mut drawn = HashSet::new();
    let mut up = up;
    for how in [&[][..], &["--lazy"], &[]] {
        let vm = lab.start(&[&["restore", &file, "--tap", "tap0"], how].concat());
        let mut connection = lab.client(KV);
        assert_eq!(connection.bulk("GET kept\r\n").unwrap().as_deref(), Some("8f1c29"));
        assert_eq!(connection.bulk("GET counter\r\n").unwrap().as_ref(), Some(&counter));
        assert_eq!(connection.request("SET counter 5\r\n").unwrap(), "+OK", "forgotten next time");
        assert_eq!(info(&mut connection, "nonce"), nonce);
        assert_eq!(info(&mut connection, "copies"), "1");
        assert!(drawn.insert(info(&mut connection, "drawn")), "random numbers differ");
        assert_eq!(info(&mut connection, "last_resume"), "restored");
        // It goes on while the store is away.
        up = clocks_are_right(&mut connection, up);
        lab.stop("kv", vm);
    }
}

#[test]
fn a_store_is_put_back() {
    let Some(lab) = Lab::new("reverts of kv", "kv") else { return };
    let vm = lab.kv();
    let mut connection = lab.client(KV);
    assert_eq!(connection.request("SET a before\r\n").unwrap(), "+OK");
    let file = lab.file("kv.snap");
    lab.snapshot("kv", &file);
    let mut drawn = HashSet::new();
    for n in 0..3 {
        let mut connection = lab.client(KV);
        assert_eq!(connection.request("SET a after\r\n").unwrap(), "+OK");
        let up = clocks_are_right(&mut connection, Duration::ZERO);
        let report = lab.json(&["revert", "kv", &file, "--json"]);
        assert!(report["pause_ns"].as_u64().unwrap() > 0, "{report}");
        let mut connection = lab.client(KV);
        clocks_are_right(&mut connection, up);
        assert_eq!(info(&mut connection, "last_resume"), "reverted");
        assert!(drawn.insert(info(&mut connection, "drawn")), "random numbers differ");
        assert_eq!(connection.bulk("GET a\r\n").unwrap().as_deref(), Some("before"), "{n}");
    }
    // From a bad file it is not.
    assert_eq!(lab.client(KV).request("SET a after\r\n").unwrap(), "+OK");
    let bad = lab.file("bad.snap");
    damage(&file, &bad, 5000);
    let said = lab.said(&["revert", "kv", &bad]);
    assert!(said.contains("damaged: the checksum of memory page"), "{said}");
    assert_eq!(lab.client(KV).bulk("GET a\r\n").unwrap().as_deref(), Some("after"));
    lab.stop("kv", vm);
}

/// A process that is somebody else's child.
struct Pidfd(OwnedFd);

impl Pidfd {
    fn of(clone: &Value) -> Self {
        let pid = clone["pid"].as_u64().unwrap();
        // SAFETY: takes numbers; the result is checked.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        assert!(fd >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: a descriptor that was just made and that nothing else owns.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Waits until it has ended.
    fn wait(&self) {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        let ended = unsafe { libc::poll(&raw mut poll, 1, PATIENCE.as_millis() as i32) };
        assert_eq!(ended, 1, "the process goes on");
    }
}

/// Copies a file with a bit turned.
fn damage(from: &str, to: &str, at: u64) {
    std::fs::copy(from, to).unwrap();
    let file = std::fs::File::options().read(true).write(true).open(to).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn damage_is_found_before_it_does_any() {
    let Some(lab) = Lab::new("damaged snapshots", "dirtier") else { return };
    let vm = lab.dirtier();
    let file = lab.file("d.snap");
    lab.snapshot("d", &file);
    lab.stop("d", vm);
    let len = std::fs::metadata(&file).unwrap().len();
    let bad = lab.file("bad.snap");
    for (at, what) in [(20, "header"), (len - 5, "state"), (4096 + 300 * 4096, "page")] {
        damage(&file, &bad, at);
        for verb in ["restore", "inspect"] {
            let said = lab.said(&[verb, &bad]);
            assert!(said.contains("damaged") && said.contains(what), "{said}");
        }
    }
    // Lazily, the VM has begun to run by then, and ends before the page is used. All of its pages are wanted sooner or later.
    let mut vm = lab.start(&["restore", &bad, "--lazy"]);
    let ended = vm.wait(PATIENCE).unwrap();
    assert_eq!(ended.code(), Some(125), "{}", vm.output());
    assert!(vm.output().contains("checksum of memory page"), "{}", vm.output());
    assert!(!vm.output().contains("errors=1"), "{}", vm.output());
    // Cut off, and something else.
    std::fs::copy(&file, &bad).unwrap();
    std::fs::File::options().write(true).open(&bad).unwrap().set_len(len - 1).unwrap();
    assert!(lab.said(&["restore", &bad]).contains("not whole"));
    let image = lab.image.to_str().unwrap();
    assert!(lab.said(&["restore", image]).contains("this is no snapshot of a VM"));
    assert!(lab.said(&["restore", &file, "--tap", "tap0"]).contains("has no network"));
}

#[test]
fn what_finds_no_room_leaves_nothing_behind() {
    let Some(lab) = Lab::new("snapshots to a full disk", "dirtier") else { return };
    let vm = lab.dirtier();
    // A disk of one megabyte, of this one process.
    let full = lab.dir.path().join("full");
    std::fs::create_dir(&full).unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$1\" && \"$2\" snapshot d \"$1/d.snap\"; code=$?; ls -A \"$1\"; exit $code";
    let program = vmm_lite_lab::images::vmm_lite().unwrap();
    let mut command = lab.vmm.command(&[]).unwrap();
    let runtime = command.get_envs().find(|(k, _)| *k == "XDG_RUNTIME_DIR").unwrap().1.unwrap();
    let mut shell = lab.vmm.host().ns.command("unshare");
    shell.args(["-m", "sh", "-c", script, "sh"]).arg(&full).arg(&program);
    shell.env("XDG_RUNTIME_DIR", runtime);
    let out = shell.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("No space left on device"), "{said}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), "", "nothing is left behind");
    command.env_clear();

    // A process that may write small files only.
    let limit = |resource, bytes: libc::rlim_t| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        let pid = vm.pid() as libc::pid_t;
        // SAFETY: a valid limit, and a process of ours that runs.
        let r = unsafe { libc::prlimit(pid, resource, &raw const limit, std::ptr::null_mut()) };
        assert_eq!(r, 0);
    };
    limit(libc::RLIMIT_FSIZE, 100_000);
    let file = lab.file("d.snap");
    let said = lab.said(&["snapshot", "d", &file]);
    assert!(said.contains("File too large"), "{said}");
    assert!(!Path::new(&file).exists());
    assert!(lab.said(&["snapshot", "d", "/nonexistent/d.snap"]).contains("cannot write"));
    limit(libc::RLIMIT_FSIZE, libc::RLIM_INFINITY);

    // One with memory for what it does, and none for a second machine beside the first.
    lab.snapshot("d", &file);
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let size = status.lines().find_map(|l| l.strip_prefix("VmSize:")).unwrap();
    let size: u64 = size.trim().trim_end_matches(" kB").parse().unwrap();
    limit(libc::RLIMIT_AS, (size + (8 << 10)) << 10);
    let said = lab.said(&["revert", "d", &file]);
    assert!(said.contains("cannot get 16777216 bytes of memory"), "{said}");
    limit(libc::RLIMIT_AS, libc::RLIM_INFINITY);
    lab.json(&["revert", "d", &file, "--json"]);

    // After all that it runs on, and can be saved.
    lab.snapshot("d", &file);
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
    let vm = lab.start(&["restore", &file]);
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
}

#[test]
fn a_difference_and_its_base_are_the_whole() {
    let Some(lab) = Lab::new("differences", "kv") else { return };
    let vm = lab.kv();
    let mut connection = lab.client(KV);
    assert_eq!(connection.request("SET a base\r\n").unwrap(), "+OK");
    let (base, diff, whole) = (lab.file("base"), lab.file("diff"), lab.file("whole"));
    let first = lab.snapshot("kv", &base);
    let other = lab.file("other");
    lab.snapshot("kv", &other);
    assert_eq!(connection.request("SET a changed\r\n").unwrap(), "+OK");
    let report = lab.json(&["snapshot", "kv", &diff, "--diff", &base, "--json"]);
    let n = |report: &Value, key: &str| report[key].as_u64().unwrap();
    assert!(n(&report, "pages_saved") < n(&first, "pages_saved") / 2, "{report}");
    assert!(n(&report, "pages_same") > 0, "{report}");
    assert!(lab.said(&["restore", &diff, "--tap", "tap0"]).contains("vmm-lite merge"));
    assert!(lab.said(&["merge", &other, &diff, "-o", &whole]).contains("not the snapshot"));
    assert!(lab.said(&["merge", &diff, &diff, "-o", &whole]).contains("a difference itself"));
    let twice = lab.said(&["snapshot", "kv", &whole, "--diff", &diff]);
    assert!(twice.contains("a difference itself"), "{twice}");
    assert!(!Path::new(&whole).exists());
    lab.json(&["merge", &base, &diff, "-o", &whole, "--json"]);
    lab.stop("kv", vm);
    for (file, value) in [(&whole, "changed"), (&base, "base")] {
        let vm = lab.start(&["restore", file, "--tap", "tap0"]);
        let mut connection = lab.client(KV);
        assert_eq!(connection.bulk("GET a\r\n").unwrap().as_deref(), Some(value));
        lab.stop("kv", vm);
    }
}

#[test]
fn clones_of_a_store_are_themselves() {
    let Some(lab) = Lab::new("clones of kv", "kv") else { return };
    let vm = lab.kv();
    let mut parent = lab.client(KV);
    assert_eq!(parent.request("SET a common\r\n").unwrap(), "+OK");
    let nonce = info(&mut parent, "nonce");
    let up = clocks_are_right(&mut parent, Duration::ZERO);
    for n in 1..=3 {
        lab.site.hosts[0].tap(&format!("tap{n}")).unwrap();
    }
    let network = ["--tap", "tap%d", "--ip", "10.0.0.21/24"];
    let said = lab.said(&["fork", "kv", "--count", "3", "--tap", "tap0", "--keep-ip"]);
    assert!(said.contains("1 were named"), "{said}");
    let fork = [&["fork", "kv", "--count", "3", "--json"][..], &network].concat();
    let mut clones = lab.start(&fork);
    let line = clones.wait_for_line("\"clones\"", PATIENCE).unwrap();
    let report: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(report["clones"].as_array().unwrap().len(), 3);
    let mut drawn = HashSet::new();
    for n in 1..=3 {
        let mut clone = lab.client(&format!("10.0.0.{}:6379", 20 + n));
        assert_eq!(clone.bulk("GET a\r\n").unwrap().as_deref(), Some("common"));
        assert_eq!(info(&mut clone, "nonce"), nonce, "the memory is the parent's");
        clocks_are_right(&mut clone, up);
        assert_eq!(info(&mut clone, "last_resume"), "forked");
        assert_eq!(info(&mut clone, "copies"), "1");
        assert!(drawn.insert(info(&mut clone, "drawn")), "random numbers are its own");
        assert_eq!(clone.request(&format!("SET a {n}\r\n")).unwrap(), "+OK");
        assert_eq!(report["clones"][n - 1]["ip"], format!("10.0.0.{}/24", 20 + n));
    }
    let macs: HashSet<_> =
        report["clones"].as_array().unwrap().iter().map(|c| c["mac"].to_string()).collect();
    assert_eq!(macs.len(), 3);
    for n in 1..=3 {
        let mut clone = lab.client(&format!("10.0.0.{}:6379", 20 + n));
        assert_eq!(clone.bulk("GET a\r\n").unwrap(), Some(n.to_string()), "each has its own");
    }
    // The connection that its clones gave up is the parent's still.
    assert_eq!(parent.bulk("GET a\r\n").unwrap().as_deref(), Some("common"));
    assert_eq!(info(&mut parent, "copies"), "0");
    assert_eq!(info(&mut parent, "last_resume"), "resumed");
    // A clone is a VM like others.
    let file = lab.file("clone.snap");
    lab.snapshot("kv-2", &file);
    let clone = Pidfd::of(&report["clones"][1]);
    lab.json(&["stop", "kv-2", "--json"]);
    clone.wait();
    let restored = lab.start(&["restore", &file, "--tap", "tap2"]);
    let mut clone = lab.client("10.0.0.22:6379");
    assert_eq!(clone.bulk("GET a\r\n").unwrap().as_deref(), Some("2"));
    lab.stop("kv-2", restored);
    // The others end with the process that started them.
    clones.signal(nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(clones.wait(PATIENCE).unwrap().code(), Some(130));
    let left = lab.json(&["ps", "--json"]);
    assert_eq!(left.as_array().unwrap().len(), 1, "{left}");
    lab.stop("kv", vm);
}

#[test]
fn twenty_clones_from_a_vm_and_from_a_file() {
    let Some(lab) = Lab::new("clones of dirtier", "dirtier") else { return };
    let vm = lab.dirtier();
    let file = lab.file("d.snap");
    lab.snapshot("d", &file);
    for args in [["fork", "d"], ["restore", &file]] {
        let verb = [&args[..], &["--count", "20", "--detach", "--json"]].concat();
        let report = lab.json(&verb);
        let clones = report["clones"].as_array().unwrap();
        assert_eq!(clones.len(), 20);
        let again = lab.said(&verb);
        assert!(again.contains("none was started"), "{again}");
        for n in 1..=20 {
            let name = format!("d-{n}");
            // It checks its memory page by page, and would have ended.
            assert_eq!(lab.json(&["stats", &name, "--json"])["state"], "running");
            let process = Pidfd::of(&clones[n - 1]);
            lab.json(&["stop", &name, "--json"]);
            process.wait();
        }
    }
    dirtier_is_whole(&vm);
    lab.stop("d", vm);
}
