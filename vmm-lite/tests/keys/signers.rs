//! Signers: they exist only while there is something to sign; they have the key, and nothing else.

use crate::memory::Needles;
use nix::sys::signal::Signal;
use std::{
    fs,
    time::{Duration, Instant},
};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// The signers that have a host's key.
fn signers(of: &Vmm) -> Vec<u32> {
    let dir = of.identity();
    let is = |pid: &u32| {
        let read = |name| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let environ = String::from_utf8_lossy(&read("environ")).into_owned();
        read("comm") == b"vmm-lite-signer\n" && environ.contains(dir.to_str().unwrap())
    };
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok()).filter(is).collect()
}

/// Waits until there are `count` of them.
#[track_caller]
fn there_are(of: &Vmm, count: usize, when: &str) -> Vec<u32> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let found = signers(of);
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < deadline, "{when}: {} signers and not {count}", found.len());
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn lab(test: &str) -> Option<(Site, [Vmm; 2])> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    Some((site, vmms))
}

fn dirtier(on: &Vmm, fail: &str) -> Process {
    let path = image("dirtier").unwrap();
    let path = path.to_str().unwrap();
    let args = ["run", path, "--name", "d", "--memory", "32M", "--", "--pages", "2048"];
    let mut command = on.command(&args).unwrap();
    if !fail.is_empty() {
        command.env("VMM_LITE_FAIL_POINT", fail);
    }
    let vm = Process::start(command).unwrap();
    vm.wait_for_line("passes=", TIMEOUT).unwrap();
    vm
}

fn migrate(from: &Vmm, to: &Vmm, args: &[&str]) -> Process {
    let url = to.url(7000);
    let all = [&["migrate", "d", &url, "--json"], args].concat();
    Process::start(from.command(&all).unwrap()).unwrap()
}

#[test]
fn a_signer_has_the_key_and_no_rights() {
    let Some((_site, vmms)) = lab("what a signer has") else { return };
    let there = vmms[1].receive(7000, &[]).unwrap();
    let signer = there_are(&vmms[1], 1, "while a VM is waited for")[0];
    let dir = vmms[1].identity();
    let (found, _) = Needles::of([&*dir]).in_process(signer);
    assert!(!found.is_empty(), "the search finds a key where there is one");
    let status = fs::read_to_string(format!("/proc/{signer}/status")).unwrap();
    let none = "0".repeat(16);
    for (field, value) in [
        ("CapPrm", &*none),
        ("CapEff", &none),
        ("CapBnd", &none),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        assert_eq!(line.map(str::trim), Some(value), "{field}");
    }
    // No other open file, and nothing of the network.
    let mut open: Vec<String> = fs::read_dir(format!("/proc/{signer}/fd"))
        .unwrap()
        .map(|fd| fs::read_link(fd.unwrap().path()).unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "/dev/null")
        .collect();
    open.retain(|name| !name.starts_with("socket:"));
    assert_eq!(open, [""; 0]);
    assert_ne!(fs::read_to_string(format!("/proc/{signer}/stat")).unwrap(), "");
    there.signal(Signal::SIGTERM).unwrap();
    there_are(&vmms[1], 0, "after the wait for a VM");
}

#[test]
fn a_signer_ends_with_what_it_signs_for() {
    let Some((_site, vmms)) = lab("the end of signers") else { return };
    let [a, b] = &vmms;
    let mut vm = dirtier(a, "");
    assert!(!migrate(a, b, &[]).wait(TIMEOUT).unwrap().success(), "there is no listener");
    there_are(a, 0, "after a move without a listener");
    for kill in [false, true] {
        let there = b.receive(7000, &[]).unwrap();
        let mut under_way = migrate(a, b, &["--mode", "pre-copy", "--bandwidth", "4MB"]);
        under_way.wait_for_line("copying", TIMEOUT).unwrap();
        there_are(a, 1, "in a move");
        if kill {
            under_way.signal(Signal::SIGKILL).unwrap();
        } else {
            a.json(&["cancel", "d", "--json"]).unwrap();
        }
        under_way.wait(TIMEOUT).unwrap();
        there_are(a, 0, "after a move that was called off");
        there.wait_for_line("a VM did not arrive", TIMEOUT).unwrap();
        there_are(b, 1, "after a move that came to nothing");
        there.signal(Signal::SIGKILL).unwrap();
        there_are(b, 0, "after the end of what waited for a VM");
    }
    let there = b.receive(7000, &[]).unwrap();
    a.migrate("d", &b.url(7000)).unwrap();
    assert!(vm.wait(TIMEOUT).unwrap().success(), "{}", vm.output());
    there_are(a, 0, "after a move");
    there_are(b, 0, "after a VM has arrived, and its source knows");
    drop(there);
}

/// After the commit a move continues without `migrate`, and its source has to prove its identity
/// again when the link breaks.
#[test]
#[cfg(debug_assertions)]
fn a_signer_outlives_migrate_when_a_move_does() {
    let Some((_site, vmms)) = lab("a signer without migrate") else { return };
    let [a, b] = &vmms;
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut vm = dirtier(a, "source.following=stop@1,source.following=cut@3");
        let there = b.receive(7000, &[]).unwrap();
        let mut gone = migrate(a, b, &["--mode", "hybrid", "--bandwidth", "40MB"]);
        crate::stops_at(&vm, "source.following");
        gone.signal(signal).unwrap();
        if signal == Signal::SIGINT {
            // The first waits for the outcome, which never arrives.
            gone.wait_for_line("cancelling", TIMEOUT).unwrap();
            gone.signal(signal).unwrap();
        }
        assert!(!gone.wait(TIMEOUT).unwrap().success());
        there_are(a, 1, "in a move whose verb is gone");
        vm.signal(Signal::SIGCONT).unwrap();
        there.wait_for_line("the source is back", TIMEOUT).unwrap();
        there.wait_for_line("all memory is here", TIMEOUT).unwrap();
        assert!(vm.wait(TIMEOUT).unwrap().success(), "{}", vm.output());
        there_are(a, 0, "after the move");
        there_are(b, 0, "after the VM has arrived");
    }
}

#[test]
fn a_host_without_a_usable_identity_fails_before_anything_begins() {
    let Some((_site, vmms)) = lab("identities that cannot be used") else { return };
    let [a, b] = &vmms;
    let vm = dirtier(a, "");
    let key = a.identity().join("key.pem");
    let kept = fs::read(&key).unwrap();
    let other = fs::read(b.identity().join("key.pem")).unwrap();
    let url = b.url(7000);
    for (content, said) in [
        (&other[..], "the certificate is another key's"),
        (b"nonsense", "key.pem makes no sense"),
        (b"", "key.pem makes no sense"),
    ] {
        fs::write(&key, content).unwrap();
        for args in [&["migrate", "d", &url][..], &["receive", "--listen", "tcp://127.0.0.1:7001"]]
        {
            let mut verb = Process::start(a.command(args).unwrap()).unwrap();
            assert!(!verb.wait(TIMEOUT).unwrap().success());
            assert!(verb.output().contains(said), "{args:?}: {}", verb.output());
        }
        there_are(a, 0, "after a verb that failed");
    }
    fs::remove_file(&key).unwrap();
    let mut verb = Process::start(a.command(&["migrate", "d", &url]).unwrap()).unwrap();
    assert!(!verb.wait(TIMEOUT).unwrap().success());
    assert!(verb.output().contains("identity init"), "{}", verb.output());
    fs::write(&key, kept).unwrap();
    drop(vm);
}
