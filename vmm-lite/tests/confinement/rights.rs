//! Users, capabilities and descriptors that a process with a VM has given up.

use crate::{
    jail,
    process::{COPIES, Confined, Origin, fields, filters},
    verbs::{Trapped, lacking},
};
use std::{collections::BTreeMap, fs, net::SocketAddr, time::Instant};
use testkit::guest::kvm;
use vmm::host::confine::Thread;
use vmm_lite_lab::{images::image, probe::Connection, process::Process, skipped, vmm::TIMEOUT};

const NOBODY: u32 = 65_534;
const BECOME_NOBODY: [&str; 6] = ["--user", "65534", "--group", "65534", "--seccomp", "trap"];

fn is_beginning(status: &BTreeMap<&str, &str>) -> bool {
    // The main thread has the program's name.
    let name = if status["Name"] == "vmm-lite" { Thread::Main.name() } else { status["Name"] };
    let kind = Thread::ALL.into_iter().find(|kind| kind.name() == name);
    let has: u32 = status["Seccomp_filters"].parse().unwrap();
    kind.is_some_and(|kind| has < filters(kind))
}

/// Rights that a thread of a process still has.
pub fn rights_left(pid: u32, uid: u32, gid: u32) -> Vec<String> {
    let mut left = Vec::new();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = limits.lines().find_map(|l| l.strip_prefix("Max realtime priority")).unwrap();
    // Without a resource limit for it, real-time priority takes a capability, in those threads that
    // request it.
    let may_nice = limit.trim_start().starts_with('0');
    const CAP_SYS_NICE: &str = "0000000000800000";
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let path = task.unwrap().path().join("status");
        let deadline = Instant::now() + TIMEOUT;
        let mut text = fs::read_to_string(&path).unwrap();
        // A thread that has just begun has yet to give up what it inherited.
        while is_beginning(&fields(&text)) && Instant::now() < deadline {
            std::thread::yield_now();
            let Ok(now) = fs::read_to_string(&path) else { break };
            text = now;
        }
        let status = fields(&text);
        // KVM has a kernel thread among those of the process, which never runs code of the process.
        if status["Name"].starts_with("kvm-") {
            continue;
        }
        let of = |n: u32| [n.to_string(), n.to_string(), n.to_string(), n.to_string()].join("\t");
        let no_capabilities = "0".repeat(16);
        for (field, expected) in [
            ("Uid", of(uid).as_str()),
            ("Gid", &of(gid)),
            ("Groups", ""),
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapInh", &no_capabilities),
            ("CapPrm", &no_capabilities),
            ("CapEff", &no_capabilities),
            ("CapBnd", &no_capabilities),
            ("CapAmb", &no_capabilities),
        ] {
            let nice = may_nice
                && ["vmm-lite", "control", "accept", "receive"].contains(&status["Name"])
                && ["CapPrm", "CapEff"].contains(&field)
                && status[field] == CAP_SYS_NICE;
            if status[field] != expected && !nice {
                left.push(format!("{} {field}: {:?}", status["Name"], status[field]));
            }
        }
    }
    left
}

/// Options that change the user of a process, and the resulting user of a process.
type Become = (Vec<&'static str>, fn(u32) -> u32);

fn nobody() -> Become {
    (BECOME_NOBODY.to_vec(), |_| NOBODY)
}

fn jailed(test: &str) -> Become {
    ([&jail::options(test)[..], &["--seccomp", "trap"]].concat(), jail::user_of)
}

#[test]
fn root_is_given_up_and_the_verbs_still_reach_the_vm() {
    root_is_given_up("becoming another user", |_| nobody());
}

#[test]
fn root_is_given_up_in_a_jail_and_the_verbs_still_reach_the_vm() {
    root_is_given_up("another user in a jail", jailed);
}

fn root_is_given_up(test: &str, how: fn(&str) -> Become) {
    if !nix::unistd::geteuid().is_root() {
        return skipped(test, "only root can become another user");
    }
    let Some(Trapped { _site, vmms: [here, there], client }) = Trapped::new(test) else { return };
    let (user, number) = how(test);
    let left = |pid: u32| rights_left(pid, number(pid), number(pid));
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let vm = here.run(&image("kv").unwrap(), &[&args[..], &user].concat()).unwrap();
    let guest: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let mut connection = Connection::open_when_up(&client, guest, TIMEOUT).unwrap();
    assert_eq!(left(vm.pid()), [""; 0]);
    let unnamed = there.receive(7000, &user).unwrap_err().to_string();
    assert!(unnamed.contains("give the VM's name here too"), "{unnamed}");
    let args = ["--name", "moved", "--tap", "tap0"];
    let next = there.receive(7000, &[&args[..], &user].concat()).unwrap();
    assert_eq!(there.json(&["ps", "--json"]).unwrap(), serde_json::json!([]), "no VM yet");
    let taken = there.receive(7001, &["--name", "moved"]).unwrap_err().to_string();
    assert!(taken.contains("a VM named moved runs already"), "{taken}");
    here.migrate("kv", &there.url(7000)).unwrap();
    assert_eq!(lacking(vm), [""; 0]);
    assert_eq!(connection.request("PING\r\n").unwrap(), "+PONG");
    assert_eq!(left(next.pid()), [""; 0]);
    assert_eq!(there.json(&["stats", "moved", "--json"]).unwrap()["state"], "running");
    there.json(&["stop", "moved", "--json"]).unwrap();
    assert_eq!(lacking(next), [""; 0]);
    // Files that they could not remove are removed by the next process that looks.
    for vmm in [&here, &there] {
        assert_eq!(vmm.json(&["ps", "--json"]).unwrap(), serde_json::json!([]));
    }
}

#[test]
fn copies_give_root_up_and_the_verbs_still_reach_them() {
    copies_give_root_up("copies becoming another user", |_| nobody());
}

#[test]
fn copies_in_jails_give_root_up_and_the_verbs_still_reach_them() {
    copies_give_root_up("copies in jails", jailed);
}

fn copies_give_root_up(test: &str, how: fn(&str) -> Become) {
    if !nix::unistd::geteuid().is_root() {
        return skipped(test, "only root can become another user");
    }
    let Some(Trapped { _site: site, vmms: [here, _], client }) = Trapped::new(test) else { return };
    let (user, number) = how(test);
    let left = |pid: u32| rights_left(pid, number(pid), number(pid));
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (file, other) = (file("kv.snap"), file("other.snap"));
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let vm = here.run(&image("kv").unwrap(), &[&args[..], &user].concat()).unwrap();
    let reach = |address: &str, vm: &Process| {
        Connection::open_when_up(&client, address.parse().unwrap(), TIMEOUT)
            .unwrap_or_else(|e| panic!("{e}; the VM's process said:\n{}", vm.output()))
    };
    assert_eq!(reach("10.0.0.2:6379", &vm).request("SET a kept\r\n").unwrap(), "+OK");
    here.json(&["snapshot", "kv", &file, "--json"]).unwrap();
    for n in 1..=2 {
        site.hosts[0].tap(&format!("tap{n}")).unwrap();
    }
    let network = ["--tap", "tap%d", "--ip", "10.0.0.21/24"];
    for from in [["fork", "kv"], ["restore", &file]] {
        let verb = [&from[..], &["--count", "2", "--json"], &network, &user].concat();
        let clones = Process::start(here.command(&verb).unwrap()).unwrap();
        let report = clones.wait_for_line("\"clones\"", TIMEOUT).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        for n in 0..2 {
            let pid = report["clones"][n]["pid"].as_u64().unwrap() as u32;
            assert_eq!(left(pid), [""; 0]);
            let mut clone = reach(&format!("10.0.0.{}:6379", 21 + n), &clones);
            assert_eq!(clone.bulk("GET a\r\n").unwrap().as_deref(), Some("kept"));
        }
        let args = ["snapshot", "kv-1", &other, "--json", "--mode", "copy-on-write"];
        let copied = here.json(&args).unwrap();
        assert_eq!(copied["mode"], "copy-on-write", "{copied}");
        here.json(&["revert", "kv-1", &other, "--json"]).unwrap();
        // However it ends, the clones end with it: only then does their output end.
        clones.signal(nix::sys::signal::Signal::SIGKILL).unwrap();
        assert_eq!(lacking(clones), [""; 0]);
    }
    here.json(&["stop", "kv", "--json"]).unwrap();
    assert_eq!(lacking(vm), [""; 0]);
    for how in [&[][..], &["--lazy"]] {
        let restore = [&["restore", &file, "--tap", "tap0"], how, &user].concat();
        let vm = Process::start(here.command(&restore).unwrap()).unwrap();
        let mut restored = reach("10.0.0.2:6379", &vm);
        assert_eq!(restored.bulk("GET a\r\n").unwrap().as_deref(), Some("kept"));
        assert_eq!(left(vm.pid()), [""; 0]);
        here.json(&["stop", "kv", "--json"]).unwrap();
        assert_eq!(lacking(vm), [""; 0]);
    }
    assert_eq!(here.json(&["ps", "--json"]).unwrap(), serde_json::json!([]));
}

#[test]
fn a_process_that_stays_root_has_no_capabilities_and_no_process_has_spare_files() {
    if !kvm() {
        return;
    }
    let file = fs::File::open("/etc/hostname").unwrap();
    // Inherited: not closed on exec.
    nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let uid_and_groups = (nix::unistd::geteuid(), nix::unistd::getegid());
    for origin in [&[Origin::Run][..], &COPIES].concat() {
        let process = Confined::with(origin, &[]);
        let kinds = match origin {
            Origin::Run => &[Thread::Stdin, Thread::Metrics][..],
            Origin::Restored | Origin::Lazily => &[Thread::Stdin],
            _ => &[],
        };
        for kind in [&[Thread::Main, Thread::Vcpu, Thread::Control], kinds].concat() {
            process.thread(kind);
        }
        process.without(Thread::Loader);
        let (uid, gid) = uid_and_groups;
        let pid = process.pid.as_raw().cast_unsigned();
        let mut left = rights_left(pid, uid.as_raw(), gid.as_raw());
        // Groups are unchanged without --user; a user other than root cannot shrink the set of
        // capabilities that others could gain.
        left.retain(|l| !l.contains("Groups") && (uid.is_root() || !l.contains("CapBnd")));
        assert_eq!(left, [""; 0], "{origin:?}");
        let mut open = process.open_files();
        if matches!(origin, Origin::Forked | Origin::Counted) {
            // What clones share, and what is their own.
            open.retain(|name| !name.starts_with("/memfd:vmm-lite-template"));
            open.retain(|name| *name != format!("/proc/{pid}/pagemap"));
        }
        assert_eq!(open, [""; 0], "{origin:?}: neither inherited nor unneeded descriptors");
    }
}
