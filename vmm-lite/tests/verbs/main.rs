//! The program itself: its verbs on a running VM, its exit codes, its errors.

mod crowds;
mod identity;
mod messages;
mod odd_files;
mod self_test;

use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};
use testkit::{
    control,
    greeting::greets_and_obeys,
    guest,
    guest::{Elf, kvm},
};
use vmm_lite_interface::doorbell::{Doorbell, PORT};

/// A runtime directory for one test, and the program run in it.
struct Host {
    dir: PathBuf,
}

impl Host {
    fn new(of: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("vmm-lite-verbs-{of}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self { dir }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmm-lite"));
        command.args(args).env("XDG_RUNTIME_DIR", &self.dir).env_remove("RUST_LOG");
        command.stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// A VM named kv, whose guest first prints `hi!`.
    fn start(&self, code: &[u8]) -> Running {
        let image = Elf::of(code).file();
        let mut command = self.command(&["run", image.path().to_str().unwrap(), "--name", "kv"]);
        command.args(["--memory", "2M"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut vm = Running(command.spawn().unwrap());
        assert_eq!(vm.first_line(), "hi!\n");
        vm
    }

    /// The answer of a verb, which must succeed.
    fn json(&self, args: &[&str]) -> Value {
        let out = self.run(args);
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A child that ends with its test.
struct Running(Child);

impl Running {
    /// Waits for the first line of its output.
    fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        line
    }

    fn code(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_verbs_work_on_a_vm_that_runs() {
    if !kvm() {
        return;
    }
    let host = Host::new("verbs");
    let image = Elf::of(greets_and_obeys()).file();
    let image = image.path().to_str().unwrap();
    let mut vm = Running(
        host.command(&["run", image, "--name", "kv", "--memory", "2M"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut stdin = vm.0.stdin.take().unwrap();
    assert_eq!(vm.first_line(), "hi!\n");

    let taken = host.run(&["run", image, "--name", "kv", "--memory", "2M"]);
    assert_eq!(taken.status.code(), Some(125));
    assert!(text(&taken.stderr).contains("a VM named kv runs already"), "{}", text(&taken.stderr));

    let ps = host.json(&["ps", "--json"]);
    assert_eq!(
        (ps[0]["name"].as_str(), ps[0]["pid"].as_u64()),
        (Some("kv"), Some(vm.0.id().into()))
    );
    assert!(text(&host.run(&["ps"]).stdout).contains("running"));

    let paused = host.json(&["pause", "kv", "--json"]);
    assert_eq!(paused["quiescent"], false);
    assert_eq!(host.json(&["stats", "kv", "--json"])["state"], "paused");
    assert!(host.run(&["resume", "kv"]).status.success());
    let again = host.run(&["resume", "kv"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("the VM is not paused"), "{}", text(&again.stderr));

    let quiesced = host.json(&["pause", "kv", "--quiesce", "5000", "--json"]);
    assert_eq!(quiesced["quiescent"], true);
    assert!(host.run(&["resume", "kv"]).status.success());
    let stats = host.json(&["stats", "kv", "--json"]);
    assert_eq!((stats["state"].as_str(), stats["resumes"].as_u64()), (Some("running"), Some(3)));
    assert_eq!(stats["exits"]["quiesced"], 1);
    assert_eq!(stats["memory_bytes"], 2 << 20);
    assert!(text(&host.run(&["stats", "kv"]).stdout).contains("of 2 MiB resident"));

    let mut console =
        Running(host.command(&["console", "kv"]).stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(console.first_line(), "hi!\n", "what was printed before is shown");

    stdin.write_all(&[42]).unwrap();
    assert_eq!(vm.code(), Some(42));
    assert_eq!(console.code(), Some(0), "the console ends with the VM");
    let gone = host.run(&["stats", "kv"]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone.stderr).contains("no VM named kv runs here"), "{}", text(&gone.stderr));
    assert_eq!(host.json(&["ps", "--json"]).as_array().unwrap().len(), 0);
}

#[test]
fn a_vm_is_stopped_by_verb_and_by_signal() {
    if !kvm() {
        return;
    }
    let host = Host::new("stop");
    let image = Elf::of(greets_and_obeys()).file();
    let start = |name| {
        let mut command = host.command(&["run", image.path().to_str().unwrap(), "--name", name]);
        let mut vm =
            Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        assert_eq!(vm.first_line(), "hi!\n");
        vm
    };
    let mut vm = start("a");
    assert!(host.run(&["stop", "a"]).status.success());
    assert_eq!(vm.code(), Some(143));

    for (signal, code) in [(libc::SIGINT, 130), (libc::SIGTERM, 143), (libc::SIGHUP, 129)] {
        let mut vm = start("b");
        // SAFETY: a child of this test that was not waited for yet.
        unsafe { libc::kill(vm.0.id() as i32, signal) };
        assert_eq!(vm.code(), Some(code));
    }

    // A paused VM can be stopped as well.
    let mut vm = start("c");
    assert!(host.run(&["pause", "c"]).status.success());
    assert!(host.run(&["stop", "c"]).status.success());
    assert_eq!(vm.code(), Some(143));

    // A killed VM leaves files behind, which are removed.
    let mut vm = start("d");
    vm.0.kill().unwrap();
    vm.0.wait().unwrap();
    assert!(host.dir.join("vmm-lite/d.sock").exists());
    assert_eq!(host.json(&["ps", "--json"]).as_array().unwrap().len(), 0);
    assert!(!host.dir.join("vmm-lite/d.sock").exists());
}

#[test]
fn the_control_socket_survives_invalid_requests() {
    if !kvm() {
        return;
    }
    let host = Host::new("socket");
    let image = Elf::of(greets_and_obeys()).file();
    let mut command = host.command(&["run", image.path().to_str().unwrap(), "--name", "kv"]);
    let mut vm = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    assert_eq!(vm.first_line(), "hi!\n");
    let socket = host.dir.join("vmm-lite/kv.sock");
    let ask = |request: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // A server that has reached its limit closes before it has read everything.
        let _ = stream.write_all(request);
        let mut line = String::new();
        let _ = BufReader::new(&mut stream).read_line(&mut line);
        line
    };
    assert!(ask(b"nonsense\n").contains("not an object in JSON"));
    assert!(ask(b"[]\n").contains("not an object in JSON"));
    assert!(ask(b"{\"verb\":\"fly\"}\n").contains("is no verb"));
    assert!(ask(b"{}\n").contains("is no verb"));
    assert!(ask(b"{\"verb\":\"pause\",\"quiesce_ms\":\"x\"}\n").contains("quiesce_ms"));
    let long = ask(&vec![b' '; 200_000]);
    assert!(long.contains("too long") || long.is_empty(), "{long}");
    assert!(ask(b"{\"verb\":\"stats\"}\n").starts_with("{\"ok\":{"));
    // Several requests on one connection, in pieces.
    let mut stream = UnixStream::connect(&socket).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    for piece in ["{\"verb\":", "\"stats\"}\n{\"verb\":\"stats\"}", "\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
    }
    for _ in 0..2 {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"ok\":"), "{line}");
    }
    assert!(host.run(&["stop", "kv"]).status.success());
    assert_eq!(vm.code(), Some(143));
}

guest!(
    exits_at_once,
    "mov dword ptr [{code}], 3", "mov edx, {port}", "mov eax, {exit}", "out dx, eax", "hlt",
    code = const control!(exit_code),
    port = const PORT as u32,
    exit = const Doorbell::EXIT.0,
);
guest!(uses_a_port, "mov dx, 0x80", "out dx, al", "hlt");

#[test]
fn exit_codes_tell_the_guest_from_the_vmm() {
    if !kvm() {
        return;
    }
    let host = Host::new("codes");
    let good = Elf::of(exits_at_once()).file();
    let out = host.run(&["run", good.path().to_str().unwrap()]);
    assert_eq!((out.status.code(), text(&out.stderr).as_str()), (Some(3), ""));
    let bad = Elf::of(uses_a_port()).file();
    let out = host.run(&["run", bad.path().to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(126));
    assert!(text(&out.stderr).contains("used I/O port 0x80"), "{}", text(&out.stderr));
    let out = host.run(&["run", "/nonexistent.img"]);
    assert_eq!(out.status.code(), Some(125));
    assert!(
        text(&out.stderr).contains("cannot read /nonexistent.img: No such file"),
        "{}",
        text(&out.stderr)
    );
    assert_eq!(host.run(&["run"]).status.code(), Some(2));
    assert_eq!(
        host.run(&["run", "x.img", "--ip", "10.0.0.2/24"]).status.code(),
        Some(2),
        "no TAP for it"
    );
    let out = host.run(&["run", good.path().to_str().unwrap(), "--tap", "vmmnone0"]);
    assert_eq!(out.status.code(), Some(125));
    assert!(
        text(&out.stderr).contains("there is no network device vmmnone0"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn standard_input_ends() {
    if !kvm() {
        return;
    }
    let host = Host::new("stdin");
    let image = Elf::of(greets_and_obeys()).file();
    let mut vm = Running(
        host.command(&["run", image.path().to_str().unwrap(), "--name", "kv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut stdin = vm.0.stdin.take().unwrap();
    // More than ring and queue hold: the writer waits, nothing is lost or overwritten, and the
    // guest exits meanwhile.
    let _ = stdin.write_all(&[9; 100_000]);
    drop(stdin);
    assert_eq!(vm.code(), Some(9));
    let mut rest = String::new();
    vm.0.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "hi!\n");
}

#[test]
fn a_user_without_permission_is_told_what_to_do() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    const NOBODY: u32 = 65_534;
    let device = std::fs::metadata("/dev/kvm");
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0
        || device.is_ok_and(|m| m.permissions().mode() & 0o006 == 0o006)
    {
        let why = "everybody may use /dev/kvm here, or this user cannot become another";
        return vmm_lite_lab::skipped("a user without the right to use KVM", why);
    }
    let host = Host::new("nobody");
    std::os::unix::fs::chown(&host.dir, Some(NOBODY), Some(NOBODY)).unwrap();
    // Other users may have no access to the build directory. A process of its own makes the copy: a
    // file that this process has open for writing is for a moment also open in what its other
    // threads fork, and cannot be executed.
    let program = host.dir.join("program");
    let copied =
        Command::new("cp").args([env!("CARGO_BIN_EXE_vmm-lite").as_ref(), &*program]).status();
    assert!(copied.unwrap().success());
    let image = Elf::of(exits_at_once()).file();
    let out = Command::new(&program)
        .args(["run", image.path().to_str().unwrap()])
        .env("XDG_RUNTIME_DIR", &host.dir)
        .stdin(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let said = text(&out.stderr);
    assert_eq!(out.status.code(), Some(125), "{said}");
    assert!(
        said.contains("/dev/kvm")
            && (said.contains("no permission") || said.contains("does not exist")),
        "{said}"
    );
}
