//! The verbs print complete messages: each is one write, so that the process cannot end, or print
//! something else, in the middle of it. And a closed reader is not a failure.

use crate::{Host, Running};
use nix::{
    sys::socket::{AddressFamily, SockFlag, SockType, socketpair},
    unistd::read,
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    os::{fd::OwnedFd, unix::net::UnixListener},
    process::{Command, Stdio},
    thread,
};
use testkit::{greeting::greets_and_obeys, guest::kvm};
use vmm_lite_lab::images::image;

/// A socket pair that keeps separate writes apart, in place of a pipe.
fn records() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap()
}

/// The separate writes, until it is closed.
fn read_all(from: &OwnedFd) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match read(from, &mut buffer).unwrap() {
            0 => return all,
            n => all.push(String::from_utf8(buffer[..n].to_vec()).unwrap()),
        }
    }
}

/// The exit code, and the process's separate writes to standard output and to standard error.
fn run(mut command: Command) -> (i32, Vec<String>, Vec<String>) {
    let [(out, to_out), (err, to_err)] = [records(), records()];
    command.stdout(Stdio::from(to_out)).stderr(Stdio::from(to_err));
    let mut child = command.spawn().unwrap();
    // Drops this process's copies of the writing ends.
    drop(command);
    let out = thread::spawn(move || read_all(&out));
    let err = read_all(&err);
    (child.wait().unwrap().code().unwrap(), out.join().unwrap(), err)
}

fn identity(host: &Host, name: &str, args: &[&str]) -> Command {
    let mut command = host.command(&["identity", "--identity"]);
    command.arg(host.dir.join(name)).args(args);
    command
}

#[test]
fn every_message_is_one_write() {
    let host = Host::new("messages");
    let no_file = host.dir.join("none").to_str().unwrap().to_owned();
    // Errors, with and without JSON.
    let verbs: &[&[&str]] = &[
        &["migrate", "none", "tcp://127.0.0.1:1", "--plaintext"],
        &["migrate", "none", "tcp://127.0.0.1:1", "--plaintext", "--json"],
        &["stop", "none"],
        &["pause", "none", "--json"],
        &["resume", "none"],
        &["cancel", "none"],
        &["stats", "none"],
        &["console", "none"],
        &["snapshot", "none", &no_file],
        &["fork", "none"],
        &["revert", "none", &no_file],
        &["inspect", &no_file],
        &["restore", &no_file],
        &["run", &no_file],
        &["run", &no_file, "--journal", &no_file],
        &["restore", "--journal", &no_file],
        &["replay", &no_file],
        &["replay", &no_file, "--json"],
        &["protect", "none", "tcp://127.0.0.1:1", "--arbiter", "file:/", "--plaintext"],
        &["protect", "none", "tcp://127.0.0.1:1", "--arbiter", "file:/", "--plaintext", "--json"],
        &["unprotect", "none"],
        &["failover", "none"],
        &["failover", "none", "--json"],
        &["standby", "--listen", "tcp://192.0.2.1:7100", "--arbiter", "file:/", "--plaintext"],
    ];
    for args in verbs {
        let (code, out, err) = run(host.command(args));
        assert_ne!(code, 0, "{args:?}");
        assert!(err.iter().any(|text| text.starts_with("vmm-lite: ")), "{args:?}: {err:?}");
        for text in out.iter().chain(&err) {
            assert!(text.ends_with('\n'), "{args:?}: a message in parts: {out:?} {err:?}");
            assert!(text.trim().len() > 1, "{args:?}: a message in parts: {out:?} {err:?}");
        }
        if args.contains(&"migrate") && args.contains(&"--json") {
            let [event] = &out[..] else { panic!("{out:?}") };
            assert_eq!(serde_json::from_str::<Value>(event).unwrap()["event"], "failed", "{event}");
        }
    }
    // Lines longer than the buffer of standard output.
    for n in 0..12 {
        let (dir, name) = (format!("other{n}"), format!("host-with-a-name-{n}"));
        let (code, line, _) = run(identity(&host, &dir, &["init"]));
        assert_eq!((code, line.len()), (0, 1), "{line:?}");
        let (code, _, err) =
            run(identity(&host, "own", &["trust", line[0].trim(), "--name", &name, "--send"]));
        assert_eq!((code, err.len()), (0, 1), "{err:?}");
    }
    let (code, out, _) = run(identity(&host, "own", &["list", "--json"]));
    let [list] = &out[..] else { panic!("JSON in {} parts: {out:?}", out.len()) };
    assert!(code == 0 && list.len() > 1024, "{list}");
    assert_eq!(serde_json::from_str::<Value>(list).unwrap().as_array().unwrap().len(), 12);
}

/// Each of these says what was wrong, and what to do.
#[test]
fn errors_of_protection_and_journals_say_what_to_do() {
    let host = Host::new("what-to-do");
    let path = |name: &str| host.dir.join(name).to_str().unwrap().to_owned();
    let (none, locks) = (path("none"), path("locks"));
    std::fs::create_dir(&locks).unwrap();
    let (file, missing) = (format!("file:{locks}"), format!("file:{none}"));
    let says = |code: i32, args: &[&str], words: &[&str]| {
        let mut command = host.command(args);
        command.env("VMM_LITE_IDENTITY", host.dir.join("no-identity"));
        let out = command.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(code), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: no {word:?} in: {said}");
        }
    };
    let there = "tcp://127.0.0.1:1";
    let standby = ["standby", "--listen", "tcp://127.0.0.1:0"];
    let protect = ["protect", "kv", there];
    let plainly = ["--plaintext", "--arbiter"];

    // The command line.
    let how = ["etcd://HOST:PORT", "file:/DIRECTORY"];
    says(2, &standby, &["--arbiter <etcd://HOST:PORT|file:/DIR>"]);
    says(2, &[&standby[..], &["--arbiter", "locks"]].concat(), &how);
    says(2, &[&protect[..], &["--arbiter", "locks"]].concat(), &how);
    says(2, &[&protect[..], &plainly, &[&file, "--misses", "0"]].concat(), &["--misses", "1.."]);
    let how = ["write a time like 500us"];
    says(2, &[&protect[..], &plainly, &[&file, "--heartbeat", "0ms"]].concat(), &how);
    let how = ["number of a record, or a time"];
    says(2, &["replay", &none, "--until", "yesterday"], &how);
    says(2, &["restore", "--journal", &none, "--until", "yesterday"], &how);
    let how = ["--commit executed"];
    says(1, &[&protect[..], &plainly, &[&file, "--allow-own-clock"]].concat(), &how);

    // Hosts that do not know each other yet.
    let how = ["no identity", "vmm-lite identity init", "vmm-lite identity trust"];
    says(125, &[&standby[..], &["--arbiter", &file]].concat(), &how);
    says(1, &[&protect[..], &["--arbiter", &file]].concat(), &how);

    // No journal, and one directory for two.
    says(1, &["replay", &none], &[&none, "is not a journal"]);
    says(125, &["restore", "--journal", &none], &["cannot open", &none]);
    says(125, &["restore", "--journal", &locks], &[&locks, "is not a journal"]);

    if !kvm() {
        return;
    }
    let vm = host.start(greets_and_obeys());
    says(1, &["unprotect", "kv"], &["not protected", "vmm-lite protect"]);
    says(1, &["failover", "kv"], &["not protected", "vmm-lite protect"]);
    says(1, &["failover", "kv", "--to", "b"], &["32 hexadecimal digits", "stats"]);
    // A guest without a kernel has no values to record.
    says(1, &[&protect[..], &plainly, &[&file]].concat(), &["vmm-lite build"]);
    drop(vm);

    let start = |with: &[&str]| {
        let image = image("hello").unwrap();
        let mut command = host.command(&["run", image.to_str().unwrap(), "--name", "kv"]);
        command.args(with).args(["--", "--cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut vm = Running(command.spawn().unwrap());
        vm.first_line();
        vm
    };
    let vm = start(&[]);
    let how = ["neither encrypted", "vmm-lite standby --listen tcp://127.0.0.1:1"];
    says(1, &[&protect[..], &plainly, &[&file]].concat(), &how);
    let how = [&*none, "is the shared file system mounted?", "runs on unprotected"];
    says(1, &[&protect[..], &plainly, &[&missing]].concat(), &how);
    drop(vm);

    let journal = path("journal");
    let _vm = start(&["--journal", &journal]);
    says(1, &[&protect[..], &plainly, &[&file]].concat(), &["has a journal", "without --journal"]);
    says(125, &["restore", "--journal", &journal], &["is being written", "end that one first"]);
    let how = ["is not empty", "name another directory"];
    let image = image("hello").unwrap();
    says(125, &["run", image.to_str().unwrap(), "--name", "b", "--journal", &journal], &how);
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let host = Host::new("readers-gone");
    let verbs: [(&[&str], i32); 3] = [(&["ps"], 0), (&["ps", "--json"], 0), (&["stop", "none"], 1)];
    for (args, code) in verbs {
        let mut command = host.command(args);
        let [(out, to_out), (err, to_err)] = [records(), records()];
        command.stdout(Stdio::from(to_out)).stderr(Stdio::from(to_err));
        drop((out, err));
        assert_eq!(command.status().unwrap().code(), Some(code), "{args:?}");
    }
}

#[test]
fn half_an_answer_is_the_end_of_the_connection() {
    let host = Host::new("half-answers");
    // Makes the directory.
    assert!(host.run(&["ps"]).status.success());
    let listener = UnixListener::bind(host.dir.join("vmm-lite/half.sock")).unwrap();
    for half in ["", "{", r#"{"ok":{"blackout_ns":12"#] {
        let verb = thread::spawn({
            let mut command = host.command(&["stats", "half"]);
            move || command.output().unwrap()
        });
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream.write_all(half.as_bytes()).unwrap();
        drop(stream);
        let out = verb.join().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(said.contains("closed the connection without an answer"), "{half}: {said}");
        assert_eq!(out.status.code(), Some(1));
    }
}
