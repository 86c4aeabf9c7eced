//! Clients of the control socket that are many, idle, or gone.

use super::{Elf, Host, Running, control, guest, kvm, says_hi_and_waits, text};
use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::CONSOLE_OUT,
};

/// More than a VM serves at a time.
const CROWD: usize = 100;
/// For what happens as soon as the host gets to it.
const PATIENCE: Duration = Duration::from_secs(120);

guest!(
    takes_no_input,
    "mov dword ptr [{ring}], 0x0a216968", // "hi!\n"
    "mov dword ptr [{head}], 4",
    "mov edx, {port}",
    "2: mov eax, {bits}",
    "out dx, eax",
    "jmp 2b",
    ring = const CONSOLE_OUT as u32,
    head = const control!(console_out.head),
    port = const PORT as u32,
    bits = const Doorbell::CONSOLE.0 | Doorbell::WAIT.0,
);

fn start(host: &Host, code: &[u8]) -> Running {
    let image = Elf::of(code).file();
    let mut command = host.command(&["run", image.path().to_str().unwrap(), "--name", "kv"]);
    command.args(["--memory", "2M"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut vm = Running(command.spawn().unwrap());
    assert_eq!(vm.first_line(), "hi!\n");
    vm
}

/// Connects and writes `bytes`; a connection that was evicted meanwhile is as good.
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
    // What a client of the crowd sends, and then waits.
    let crowds: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("half a request", b"{\"verb\":"),
        ("a request", b"{\"verb\":\"stats\"}\n"),
        ("a console", b"{\"verb\":\"console\"}\n"),
        ("a long request", b"{\"verb\":\"stats\",\"dirty_rate_ms\":10000}\n"),
        ("answers not taken", &b"{\"verb\":\"metrics\"}\n".repeat(500)),
    ];
    for (what, bytes) in crowds {
        let mut vm = start(&host, says_hi_and_waits());
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
    let _vm = start(&host, says_hi_and_waits());
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

#[test]
fn a_console_client_that_leaves_while_input_is_full_leaves_nothing() {
    if !kvm() {
        return;
    }
    let host = Host::new("left");
    let socket = host.dir.join("vmm-lite/kv.sock");
    let vm = start(&host, takes_no_input());
    let count =
        |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", vm.0.id())).unwrap().count();
    // The guest may have said hi before the last of them was there.
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", vm.0.id())).unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm"));
        tasks.filter_map(|task| name(task.unwrap()).ok()).collect::<Vec<_>>()
    };
    let there = |name: &&str| threads().iter().any(|thread| thread == name);
    let begun = Instant::now();
    while !["stdin\n", "watchdog\n"].iter().all(there) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", threads());
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = (count("task"), count("fd"));
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
                // Until nobody takes any more.
                client.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
                while client.write(&[b'x'; 4096]).is_ok() {}
                client
            })
            .collect();
        assert!(count("task") > before.0);
        drop(clients);
    }
    let deadline = Instant::now() + PATIENCE;
    while (count("task"), count("fd")) != before {
        let now = (count("task"), count("fd"));
        assert!(Instant::now() < deadline, "{before:?} threads and descriptors, then {now:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
