//! gdb debugs a recorded run.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};
use testkit::guest::{kvm, test_name};
use vmm_lite_lab::{
    images::{image, vmm_lite},
    skipped,
};

/// Whether there is a gdb.
fn gdb() -> bool {
    let found = Command::new("gdb").arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        skipped(&test_name(), "there is no gdb (package gdb)");
    }
    found
}

/// The journal of a run in `dir`.
fn record(dir: &Path) {
    let mut run = Command::new(vmm_lite().unwrap());
    run.arg("run").arg(image("std-check").unwrap()).arg("--journal").arg(dir);
    run.args(["--sync", "never", "--check-every", "1", "--check-whole"]);
    let output = run.args(["--", "--only", "time"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// A replay that waits for gdb, and its address.
fn replay(dir: &Path) -> (Child, String) {
    let mut replay = Command::new(vmm_lite().unwrap());
    replay.arg("replay").arg(dir).args(["--gdb", "127.0.0.1:0", "--json"]);
    let mut child = replay.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = said.find_map(|line| line.ok().filter(|line| line.contains("target remote")));
    let line = line.expect("it says what to type");
    // It may go on to say something.
    std::thread::spawn(move || said.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
    let address = line.rsplit(' ').next().unwrap().trim_end_matches('\'').to_owned();
    (child, address)
}

/// What gdb prints when it is given these commands.
fn ask(address: &str, commands: &[&str]) -> String {
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off", "-iex", "set language c"]);
    gdb.arg(image("std-check").unwrap());
    for command in [&format!("target remote {address}")[..]].iter().chain(commands) {
        gdb.args(["-ex", command]);
    }
    let output = gdb.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!("{text}");
    text
}

/// What a replay reported.
fn report(mut child: Child) -> serde_json::Value {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    serde_json::from_str(&text).unwrap()
}

/// The value that was printed after `name =`.
fn value<'t>(text: &'t str, name: &str) -> &'t str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    line.unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn gdb_breaks_steps_and_goes_back_in_a_run_that_stays_the_same() {
    if !kvm() || !gdb() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("journal");
    record(&dir);
    let (child, address) = replay(&dir);
    let show = |name: &str| format!("printf \"{name} = %lx %lx\\n\", $rip, $rsp");
    let [first, stepped, second, back, before, again] =
        ["first", "stepped", "second", "back", "before", "again"].map(show);
    let text = ask(
        &address,
        &[
            // Behind the boot, whose steps would have to be counted.
            "monitor until 20",
            "continue",
            "monitor until",
            "break sys_clock_gettime",
            "continue",
            &first,
            "backtrace 8",
            "monitor where",
            "stepi",
            &stepped,
            "set var $rax = 1",
            "set var *(char *) $rip = 1",
            "continue",
            &second,
            "reverse-continue",
            &back,
            "reverse-stepi",
            &before,
            "stepi",
            &again,
            "delete",
            "continue",
            "continue",
        ],
    );
    assert_eq!(value(&text, "first"), value(&text, "back"));
    assert_eq!(value(&text, "first"), value(&text, "again"));
    assert_ne!(value(&text, "first"), value(&text, "stepped"));
    assert_ne!(value(&text, "first"), value(&text, "before"));
    assert!(text.contains("#1 "), "a backtrace");
    assert!(text.contains("record ") && text.contains("the guest's clock"));
    assert!(text.contains("No more reverse-execution history"), "the end of the log");
    assert!(text.contains("exited normally"));
    let report = report(child);
    assert_eq!((&report["same"], &report["exit_code"]), (&true.into(), &0.into()), "{report}");
}

#[test]
fn a_run_goes_on_to_its_end_without_a_debugger() {
    if !kvm() || !gdb() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("journal");
    record(&dir);
    let (child, address) = replay(&dir);
    let text = ask(
        &address,
        &["monitor until 40", "continue", "monitor where", "reverse-continue", "detach"],
    );
    assert!(text.contains("record 40 of") || text.contains("record 41 of"));
    let report = report(child);
    assert_eq!((&report["same"], &report["exit_code"]), (&true.into(), &0.into()), "{report}");
}

#[test]
fn a_client_that_sends_anything_is_dropped_and_the_next_one_is_served() {
    if !kvm() || !gdb() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("journal");
    record(&dir);
    let (child, address) = replay(&dir);
    let long = [&b"$m"[..], &[b'f'; 100_000]].concat();
    for said in [&long[..], b"$mffffffffffffffff,ffffffffffffffff#aa", b"$vCont;s#b8", b"\0\xff"] {
        let mut client = TcpStream::connect(&address).unwrap();
        // It may be dropped before it has said all.
        let _ = client.write_all(said);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    let text = ask(&address, &["break sys_clock_gettime", "continue", "delete", "detach"]);
    assert!(text.contains("Breakpoint 1, "));
    let report = report(child);
    assert_eq!((&report["same"], &report["exit_code"]), (&true.into(), &0.into()), "{report}");
}
