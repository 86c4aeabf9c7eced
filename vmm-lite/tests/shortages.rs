//! A destination that lacks something: both sides say what, the VM keeps running, and the next try
//! succeeds once it is there.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};
use testkit::client::Talk;
use testkit::hosts::{Lab, PORT};
use vmm_lite_interface::layout::MEMORY_MAX;
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    skipped,
    vmm::{TIMEOUT, Vmm},
};

/// The VM's memory.
const SIZE: &str = "64M";
const STORE: Talk = Talk::Store { count: 0 };
const MEMORY: Talk = Talk::Memory { nonce: None, written: 0 };

/// A move fails because something is missing, which both sides report.
#[track_caller]
fn lacks(lab: &Lab, destination: &Process, what: &str) {
    let said = lab.migrate(&[]).unwrap_err().to_string();
    assert!(said.contains(what), "{said}");
    let line = destination.wait_for_line("did not arrive", TIMEOUT).unwrap();
    assert!(line.contains(what), "{line}");
    let stats = lab.here().json(&["stats", "d", "--json"]).unwrap();
    assert_eq!(stats["state"], "running", "{what}");
    lab.client.hears(what);
}

/// Now nothing is missing.
#[track_caller]
fn moves(lab: &mut Lab, destination: Process) {
    lab.moves("nothing is missing", &[], destination);
}

#[test]
fn a_move_without_an_available_tap_fails() {
    let Some(mut lab) = Lab::new("destinations without a TAP", "kv", SIZE, &[], STORE) else {
        return;
    };
    // No TAP was named. A named one is opened at the start, so another process takes over.
    let without = lab.there().receive(PORT, &[]).unwrap();
    lacks(&lab, &without, "given no TAP device (--tap)");
    drop(without);
    let with = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    moves(&mut lab, with);

    // No TAP has that name yet.
    let late = lab.there().receive(PORT, &["--tap", "late0"]).unwrap();
    lacks(&lab, &late, "there is no network device late0");
    lab.there().host().tap("late0").unwrap();
    moves(&mut lab, late);

    // Another VM has it.
    let args = ["--name", "other", "--tap", "tap0", "--ip", "10.0.0.3/24", "--", "--quiet"];
    let mut other = lab.there().run(&image("dirtier").unwrap(), &args).unwrap();
    other.wait_for_line("nonce", TIMEOUT).unwrap();
    let taken = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    lacks(&lab, &taken, "TAP device tap0 is busy");
    lab.there().json(&["stop", "other", "--json"]).unwrap();
    other.wait(TIMEOUT).unwrap();
    moves(&mut lab, taken);
}

#[test]
fn a_move_to_a_tap_that_would_cut_off_clients_fails() {
    let Some(mut lab) = Lab::new("destinations with an unsuitable TAP", "kv", SIZE, &[], STORE)
    else {
        return;
    };
    let host = lab.there().host().clone();
    host.tap("small0").unwrap();
    let receive = |lab: &Lab, tap: &str| lab.there().receive(PORT, &["--tap", tap]).unwrap();

    let small = receive(&lab, "small0");
    host.ns.ip(["link", "set", "dev", "small0", "mtu", "1400"]).unwrap();
    lacks(&lab, &small, "ip link set small0 mtu 1500");
    drop(small);
    let small = receive(&lab, "small0");
    host.ns.ip(["link", "set", "dev", "small0", "down"]).unwrap();
    lacks(&lab, &small, "ip link set small0 up");
    host.ns.ip(["link", "set", "dev", "small0", "mtu", "1500", "up"]).unwrap();
    moves(&mut lab, small);

    // Packets may be longer than the guest's, and it is the same guest when it moves back.
    let host = lab.there().host().clone();
    host.tap("large0").unwrap();
    host.ns.ip(["link", "set", "dev", "large0", "mtu", "9000"]).unwrap();
    let large = receive(&lab, "large0");
    moves(&mut lab, large);
    let back = receive(&lab, "tap0");
    moves(&mut lab, back);
}

/// By default a destination refuses a VM that is larger than its host's available memory.
#[test]
fn a_vm_that_is_larger_than_the_host() {
    const TEST: &str = "a VM that is larger than the host";
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let gib = total.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / (1 << 20) + 1;
    if gib > MEMORY_MAX >> 30 {
        return skipped(TEST, format!("it would have {gib} GiB, which no VM can"));
    }
    let Some(site) = Site::for_test(TEST) else { return };
    let [here, there] = Vmm::on_both(&site).unwrap();
    let (size, image) = (format!("{gib}G"), image("dirtier").unwrap());
    let args = ["--name", "d", "--memory", &size, "--", "--pages", "16"];
    let mut vm = here.run(&image, &args).unwrap();
    if let Err(e) = vm.wait_for_line("passes=", TIMEOUT) {
        assert!(!vm.is_running(), "{e}");
        return skipped(TEST, format!("this host promises no {size}: {}", vm.output()));
    }
    let receives = there.receive(PORT, &["--plaintext"]).unwrap();
    let url = there.url(PORT);
    let migrate = ["migrate", "d", &url, "--plaintext", "--json"];
    let said = here.json(&migrate).unwrap_err().to_string();
    assert!(said.contains("--memory-max"), "{said}");
    drop(receives);
    // Unless the operator allows it.
    let receives = there.receive(PORT, &["--plaintext", "--memory-max", &size]).unwrap();
    here.json(&migrate).unwrap();
    receives.wait_for_line("passes=", TIMEOUT).unwrap();
}

/// Bytes of a process's address space.
fn address_space(process: &Process) -> u64 {
    let sizes = fs::read_to_string(format!("/proc/{}/statm", process.pid())).unwrap();
    4096 * sizes.split(' ').next().unwrap().parse::<u64>().unwrap()
}

/// Limits a process's address space; returns the previous limit.
fn limit_address_space(process: &Process, bytes: u64) -> u64 {
    let mut before = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let to = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    let pid = process.pid().cast_signed();
    // SAFETY: both limits are valid, and outlive the call.
    let r = unsafe { libc::prlimit(pid, libc::RLIMIT_AS, &raw const to, &raw mut before) };
    assert_eq!(r, 0, "{}", std::io::Error::last_os_error());
    before.rlim_cur
}

#[test]
fn a_move_without_enough_memory_fails() {
    let Some(mut lab) = Lab::new("destinations without memory", "dirtier", SIZE, &[], MEMORY)
    else {
        return;
    };
    let destination = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    // Enough for a thread, but not for the VM's 64 MiB.
    let most = address_space(&destination) + (32 << 20);
    let before = limit_address_space(&destination, most);
    lacks(&lab, &destination, "memory");
    limit_address_space(&destination, before);
    moves(&mut lab, destination);
}

/// Directory of a host's control sockets.
fn sockets(vmm: &Vmm) -> PathBuf {
    vmm.identity().with_file_name("vmm-lite")
}

#[test]
fn a_move_to_a_host_with_an_unwritable_directory_fails() {
    let Some(mut lab) =
        Lab::new("destinations whose directory is not to be written to", "kv", SIZE, &[], STORE)
    else {
        return;
    };
    let destination = lab.there().receive(PORT, &["--tap", "tap0"]).unwrap();
    let directory = sockets(lab.there());
    let mode = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
    // The process has given up the capability with which root could still write to it.
    mode(0o500);
    lacks(&lab, &destination, "for control sockets");
    mode(0o700);
    moves(&mut lab, destination);
}
