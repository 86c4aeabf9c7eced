//! The program as a process: its status port, and its end.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

fn field(json: &str, name: &str) -> u64 {
    let (_, rest) =
        json.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("no {name} in {json}"));
    rest.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn counters_move_and_reset_forgets_the_gaps_only() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_dirtier"))
        .args(["--pages", "16", "--port", "0", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(' ').next().unwrap().parse().unwrap();

    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut answers = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut ask = |what: &str| {
        (&stream).write_all(format!("{what}\n").as_bytes()).unwrap();
        answers.next().unwrap().unwrap()
    };
    let first = ask("status");
    let second = loop {
        let now = ask("status");
        if field(&now, "passes") > field(&first, "passes") {
            break now;
        }
    };
    let nonce = |json: &str| json.split('"').nth(3).unwrap().to_owned();
    assert_eq!(nonce(&first), nonce(&second));
    assert_eq!(field(&second, "errors"), 0);
    assert!(field(&second, "max_gap_ns") > 0);
    // Counters published in the middle of a pass contain more than full passes.
    assert!(field(&second, "pages_written") >= 16 * field(&second, "passes"), "{second}");
    assert!(ask("nonsense").contains("error"));
    let after = ask("reset");
    assert_eq!(field(&after, "max_gap_ns"), 0);
    assert!(field(&after, "passes") >= field(&second, "passes"));
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn ends_after_the_requested_passes() {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtier"))
        .args(["--pages", "3", "--passes", "5"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("passes=5 errors=0"), "{text}");
}

#[test]
fn ends_after_the_requested_time() {
    let start = std::time::Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_dirtier"))
        .args(["--pages", "8", "--seconds", "1", "--quiet"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!((1.0..20.0).contains(&start.elapsed().as_secs_f64()));
}

#[test]
fn a_broken_page_is_named_and_ends_the_program() {
    let output = Command::new(env!("CARGO_BIN_EXE_dirtier"))
        .args(["--pages", "9", "--spoil", "7"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("page 7 was written with sequence 1, has sequence 1;"), "{text}");
    assert_eq!(text.matches("dirtier: page ").count(), 1, "{text}");
}

#[test]
fn wrong_usage_is_reported() {
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_dirtier")).args(args).output().unwrap();
    assert!(String::from_utf8(run(&["--help"]).stdout).unwrap().contains("--pages N"));
    for args in [&["--pages", "0"][..], &["--pages", "few"], &["--spoil", "1024"], &["pages"]] {
        assert_eq!(run(args).status.code(), Some(2), "{args:?}");
    }
    let much = run(&["--pages", "4000000000000"]);
    assert_eq!(much.status.code(), Some(1));
    assert!(String::from_utf8(much.stderr).unwrap().contains("do not fit into memory"));
}
