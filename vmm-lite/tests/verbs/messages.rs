//! The verbs print complete messages: each is one write, so that the process cannot end, or print
//! something else, in the middle of it. And a closed reader is not a failure.

use crate::Host;
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
