//! Clients of the control socket: many, idle, or gone.

use super::{Host, greets_and_obeys, kvm, text};
use std::{
    fs::{self, DirEntry},
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::DirBuilderExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use testkit::greeting::greets;

/// More clients than a VM serves at a time.
const CROWD: usize = 100;
/// For events that occur as soon as the host schedules them.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Connects and writes `bytes`; a connection that was evicted meanwhile serves as well.
fn client(socket: &Path, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    let _ = stream.write_all(bytes);
    stream
}

#[test]
fn verbs_are_served_whatever_other_clients_do() {
    if !kvm() {
        return;
    }
    let host = Host::new("crowds");
    let socket = host.dir.join("vmm-lite/kv.sock");
    // What a client of the crowd sends before it waits.
    let crowds: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("half a request", b"{\"verb\":"),
        ("a request", b"{\"verb\":\"stats\"}\n"),
        ("a console", b"{\"verb\":\"console\"}\n"),
        ("a long request", b"{\"verb\":\"stats\",\"dirty_rate_ms\":10000}\n"),
        ("answers not taken", &b"{\"verb\":\"metrics\"}\n".repeat(500)),
    ];
    for (what, bytes) in crowds {
        let mut vm = host.start(greets_and_obeys());
        let crowd: Vec<_> = (0..CROWD)
            .map(|_| {
                let stream = UnixStream::connect(&socket).unwrap();
                stream.set_nonblocking(true).unwrap();
                let _ = (&stream).write(bytes);
                stream
            })
            .collect();
        assert_eq!(host.json(&["ps", "--json"])[0]["state"], "running", "{what}");
        assert_eq!(host.json(&["stats", "kv", "--json"])["state"], "running", "{what}");
        let out = host.run(&["stop", "kv"]);
        assert!(out.status.success(), "{what}: {}", text(&out.stderr));
        assert_eq!(vm.code(), Some(143), "{what}");
        drop(crowd);
    }
}

#[test]
fn too_many_long_requests_are_refused_with_the_reason() {
    if !kvm() {
        return;
    }
    let host = Host::new("consoles");
    let socket = host.dir.join("vmm-lite/kv.sock");
    let _vm = host.start(greets_and_obeys());
    let lines: Vec<_> = (0..CROWD)
        .map(|_| {
            let mut lines = BufReader::new(client(&socket, b"{\"verb\":\"console\"}\n"));
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            (line, lines)
        })
        .collect();
    let served = lines.iter().filter(|(line, _)| line.contains("\"raw\":true")).count();
    assert!((8..32).contains(&served), "{served}");
    let refused = lines.iter().filter(|(line, _)| line.contains("requests that take long")).count();
    assert_eq!(served + refused, CROWD);
}

/// The names of a process's threads, in order.
fn tasks(pid: u32) -> Vec<String> {
    let of = |task: std::io::Result<DirEntry>| {
        // A thread that has just ended has none.
        fs::read_to_string(task.unwrap().path().join("comm")).ok()
    };
    let mut names: Vec<_> =
        fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(of).collect();
    names.sort_unstable();
    names
}

/// A VM with too many clients tells some that they may retry, which the verbs do.
#[test]
fn a_verb_tries_again_where_the_vm_says_that_it_may() {
    let host = Host::new("again");
    let dir = host.dir.join("vmm-lite");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let listener = UnixListener::bind(dir.join("kv.sock")).unwrap();
    let again = b"{\"error\":\"too many clients\",\"retry\":true}\n";
    let serve = move || {
        // One connection that it does not read from, and some whose request it has read.
        for reads in [false, true, true] {
            let (mut stream, _) = listener.accept().unwrap();
            if reads {
                BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            }
            stream.write_all(again).unwrap();
        }
        let (mut stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        stream.write_all(b"{\"ok\":{\"state\":\"running\"}}\n").unwrap();
        // Nor does the verb retry for ever.
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(again);
        }
    };
    std::thread::spawn(serve);
    assert_eq!(host.json(&["stats", "kv", "--json"])["state"], "running");
    let out = host.run(&["stats", "kv"]);
    assert!(!out.status.success());
    assert!(text(&out.stderr).contains("too many clients"), "{}", text(&out.stderr));
}

/// A signal that arrives before the VM received the request ends a move with an event too.
#[test]
fn a_move_that_is_interrupted_before_it_is_asked_for_ends_with_an_event() {
    let host = Host::new("early");
    let dir = host.dir.join("vmm-lite");
    fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
    let path = dir.join("kv.sock");
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    // There is room for one client, and the verb waits for room.
    let first = UnixStream::connect(&path).unwrap();
    let args = ["migrate", "kv", "tcp://127.0.0.1:7000", "--plaintext", "--json"];
    let mut command = host.command(&args);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + TIMEOUT;
    while !tasks(child.id()).iter().any(|name| name.trim() == "signals") {
        assert!(Instant::now() < deadline, "it does not look for signals");
        std::thread::sleep(Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(130));
    assert!(text(&out.stdout).contains(r#""event":"failed""#), "{}", text(&out.stdout));
    drop((first, listener));
}

#[test]
fn a_console_client_that_leaves_while_input_is_full_leaves_nothing() {
    if !kvm() {
        return;
    }
    let host = Host::new("left");
    let socket = host.dir.join("vmm-lite/kv.sock");
    let vm = host.start(greets());
    let count = |what: &str| fs::read_dir(format!("/proc/{}/{what}", vm.0.id())).unwrap().count();
    let deadline = Instant::now() + TIMEOUT;
    let wait_until = |so: &dyn Fn() -> bool| {
        while !so() {
            let tasks = tasks(vm.0.id());
            assert!(Instant::now() < deadline, "{tasks:?}, {} descriptors", count("fd"));
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let serves = |tasks: &[String]| tasks.iter().any(|name| name.contains("con"));
    // When it has answered, all threads and descriptors of a new VM exist, except the last thread.
    host.json(&["stats", "kv", "--json"]);
    let is_there = |tasks: &[String]| tasks.iter().any(|name| name.trim() == "watchdog");
    wait_until(&|| {
        let tasks = tasks(vm.0.id());
        !serves(&tasks) && is_there(&tasks)
    });
    let before = (tasks(vm.0.id()), count("fd"));
    for _ in 0..3 {
        let clients: Vec<_> = (0..10)
            .map(|_| {
                let mut client = client(&socket, b"{\"verb\":\"console\"}\n");
                let mut lines = BufReader::new(client.try_clone().unwrap());
                for expected in ["{\"ok\"", "hi!"] {
                    let mut line = String::new();
                    lines.read_line(&mut line).unwrap();
                    assert!(line.starts_with(expected), "{line}");
                }
                // Until the VM reads no more.
                client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                while client.write(&[b'x'; 4096]).is_ok() {}
                client
            })
            .collect();
        assert!(serves(&tasks(vm.0.id())));
        drop(clients);
    }
    wait_until(&|| (tasks(vm.0.id()), count("fd")) == before);
}
