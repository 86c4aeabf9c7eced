//! All functions of a VM work within the filters.

use crate::jail;
use std::{fs, io::Write, net::SocketAddr};
use vmm_lite_lab::{
    images::image,
    probe::Connection,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// Two hosts whose VMs report system calls that their filters lack.
pub struct Trapped {
    pub _site: Site,
    pub vmms: [Vmm; 2],
    pub client: vmm_lite_lab::net::Namespace,
}

impl Trapped {
    pub fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        Some(Self { client: site.client.clone(), _site: site, vmms })
    }
}

/// Ends a process and returns the calls that its filters lacked.
pub fn lacking(mut process: Process) -> Vec<String> {
    process.wait(TIMEOUT).unwrap();
    let output = process.output();
    output.lines().filter(|l| l.contains("made the system call")).map(str::to_owned).collect()
}

/// A test for developers: runs all verbs, and names the calls that are missing from the filters at
/// the end.
#[test]
fn all_verbs_work_within_the_filters() {
    all_verbs_work("all verbs, confined", &[]);
}

#[test]
fn all_verbs_work_with_a_vm_in_a_jail() {
    const TEST: &str = "all verbs, jailed";
    all_verbs_work(TEST, &jail::options(TEST));
}

fn all_verbs_work(test: &str, confined: &[&'static str]) {
    let Some(Trapped { _site, vmms: [here, there], client }) = Trapped::new(test) else { return };
    let mut missing = Vec::new();
    let kv = image("kv").unwrap();
    let trap = [&["--seccomp", "trap"], confined].concat();
    let with = |args: &[&'static str]| [args, &trap[..]].concat();
    // A move there and back, with the other verbs during it.
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let mut vm = here.run(&kv, &with(&args)).unwrap();
    let guest: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let mut verbs = Vec::new();
    match Connection::open_when_up(&client, guest, TIMEOUT) {
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
                let next = to.receive(7000, &with(&["--tap", "tap0", "--name", "kv"])).unwrap();
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
    // The console, and the ways in which a program ends.
    let args = ["--name", "d", "--memory", "16M"];
    let args = [&with(&args)[..], &["--", "--pages", "64"]].concat();
    let vm = here.run(&image("dirtier").unwrap(), &args).unwrap();
    vm.wait_for_line("nonce", TIMEOUT).unwrap();
    let mut console = Process::start(here.command(&["console", "d"]).unwrap()).unwrap();
    console.stdin().unwrap().write_all(b"to nobody\n").unwrap();
    if let Err(e) = console.wait_for_line("nonce", TIMEOUT) {
        verbs.push(format!("console: {e}"));
    }
    let file = std::env::temp_dir().join(format!(
        "vmm-lite-confined-{}-{}.snap",
        std::process::id(),
        confined.len()
    ));
    let path = file.to_str().unwrap();
    for args in [
        &["snapshot", "d", path, "--mode", "copy-on-write", "--json"][..],
        &["snapshot", "d", path, "--mode", "rounds", "--json"],
        &["revert", "d", path, "--json"],
        &[&["fork", "d", "--count", "1", "--detach", "--json"], confined].concat(),
        &["stop", "d-1", "--json"],
        &["stop", "d", "--json"],
    ] {
        if let Err(e) = here.json(args) {
            verbs.push(format!("{args:?}: {e}"));
        }
    }
    missing.extend(lacking(vm));
    // Copies, which are VMs like any other, and move away.
    let other = file.with_extension("other");
    let other = other.to_str().unwrap();
    for how in [&[][..], &["--lazy"], &["--count", "1"]] {
        let (name, clone) = if how.contains(&"--count") { ("d-1", "d-1-1") } else { ("d", "d-1") };
        let restore = [&["restore", path], how, &trap].concat();
        let copy = Process::start(here.command(&restore).unwrap()).unwrap();
        if let Err(e) = copy.wait_for_line("passes=", TIMEOUT) {
            verbs.push(format!("{restore:?}: {e}"));
        }
        for args in [
            &["stats", name, "--json"][..],
            &["snapshot", name, other, "--mode", "copy-on-write", "--json"],
            &["snapshot", name, other, "--mode", "rounds", "--json"],
            &["revert", name, other, "--json"],
            &[&["fork", name, "--count", "1", "--detach", "--json"], confined].concat(),
            &["stop", clone, "--json"],
        ] {
            if let Err(e) = here.json(args) {
                verbs.push(format!("{how:?}: {args:?}: {e}"));
            }
        }
        let next = there.receive(7000, &[&["--name", name], &trap[..]].concat()).unwrap();
        let hybrid = ["--mode", "hybrid", "--bandwidth", "40MB"];
        let url = there.url(7000);
        let moved = [&["migrate", name, &url, "--json"], &hybrid[..]].concat();
        if let Err(e) = here.json(&moved).and_then(|_| there.json(&["stop", name, "--json"])) {
            verbs.push(format!("{how:?}: {moved:?}: {e}"));
        }
        missing.extend(lacking(copy));
        missing.extend(lacking(next));
    }
    for file in [path, other] {
        let _ = fs::remove_file(file);
    }
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
