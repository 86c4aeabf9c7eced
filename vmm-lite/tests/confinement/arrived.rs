//! A VM that was received has no rights that a VM started by `run` lacks.

use crate::{
    process::fields,
    trace::put_call,
    verbs::{Trapped, lacking},
};
use nix::{
    sys::{ptrace, signal::Signal},
    unistd::Pid,
};
use std::{collections::BTreeMap, fs, net::TcpStream, time::Instant};
use vmm_lite_lab::{images::image, process::Process, vmm::TIMEOUT};

const ARGS: [&str; 9] =
    ["--name", "d", "--memory", "32M", "--seccomp", "trap", "--", "--pages", "2048"];

/// The threads of a process by name, each with the fields of its status.
fn threads(pid: u32) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut threads = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        let status: BTreeMap<String, String> =
            fields(&status).into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        // KVM's own threads belong to the kernel.
        if !status["Name"].starts_with("kvm-") {
            threads.insert(status["Name"].clone(), status);
        }
    }
    threads
}

/// What the descriptors of a process refer to, and how often.
fn descriptors(pid: u32) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let name = fs::read_link(fd.unwrap().path()).unwrap().to_string_lossy().into_owned();
        let kind = name.split([':', ' ']).next().unwrap().to_owned();
        // Sockets and pipes differ only in their number.
        let name = if ["socket", "pipe"].contains(&&*kind) { kind } else { name };
        *all.entry(name.rsplit('/').next().unwrap().to_owned()).or_default() += 1;
    }
    all
}

fn dirtier(lab: &Trapped, fail: &str) -> Process {
    let path = image("dirtier").unwrap();
    let run = [&["run", path.to_str().unwrap()][..], &ARGS].concat();
    let mut command = lab.vmms[0].command(&run).unwrap();
    if !fail.is_empty() {
        command.env("VMM_LITE_FAIL_POINT", fail);
    }
    let vm = Process::start(command).unwrap();
    vm.wait_for_line("passes=", TIMEOUT).unwrap();
    vm
}

/// Waits until no thread of a process has one of these names.
fn without(pid: u32, names: &[&str]) {
    let deadline = Instant::now() + TIMEOUT;
    while names.iter().any(|name| threads(pid).contains_key(*name)) {
        assert!(Instant::now() < deadline, "{:?}", threads(pid).keys());
        std::thread::yield_now();
    }
}

#[test]
fn a_received_vm_keeps_no_right_that_a_started_one_lacks() {
    let Some(lab) = Trapped::new("rights of a VM that was received") else { return };
    let [here, there] = &lab.vmms;
    let run = dirtier(&lab, "");
    let (run_threads, run_open) = (threads(run.pid()), descriptors(run.pid()));
    for mode in ["pre-copy", "hybrid", "stop-and-copy"] {
        let source = dirtier_named(&lab, mode);
        let received = there.receive(7000, &["--seccomp", "trap"]).unwrap();
        let pid = received.pid();
        here.json(&["migrate", mode, &there.url(7000), "--mode", mode, "--json"]).unwrap();
        received.wait_for_line("passes=", TIMEOUT).unwrap();
        without(pid, &["accept", "receive"]);
        let mut wider = Vec::new();
        for (name, status) in threads(pid) {
            let Some(as_run) = run_threads.get(&name) else {
                wider.push(format!("a thread {name}"));
                continue;
            };
            for field in [
                "Uid",
                "Gid",
                "Groups",
                "CapInh",
                "CapPrm",
                "CapEff",
                "CapBnd",
                "CapAmb",
                "NoNewPrivs",
                "Seccomp",
                "SigBlk",
                "SigIgn",
                "SigCgt",
            ] {
                if status[field] != as_run[field] {
                    let (is, was) = (&status[field], &as_run[field]);
                    wider.push(format!("{name}: {field} is {is} and not {was}"));
                }
            }
            // Filters only become narrower.
            let filters =
                |of: &BTreeMap<String, String>| of["Seccomp_filters"].parse::<u32>().unwrap();
            if filters(&status) < filters(as_run) {
                wider.push(format!("{name}: fewer filters"));
            }
        }
        for (name, count) in descriptors(pid) {
            let as_run = run_open.get(&name.replace(mode, "d")).copied().unwrap_or_default();
            if count > as_run {
                wider.push(format!("{count} of {name} open, and not {as_run}"));
            }
        }
        let limits = |pid| fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        if limits(pid) != limits(run.pid()) {
            wider.push("other limits".into());
        }
        let reach = format!("{}:7000", there.host().migration_ip);
        if there.host().ns.enter(move || TcpStream::connect(reach)).unwrap().is_ok() {
            wider.push("it listens".into());
        }
        assert_eq!(wider, [""; 0], "{mode}");
        there.json(&["stop", mode, "--json"]).unwrap();
        assert_eq!(lacking(received), [""; 0]);
        assert_eq!(lacking(source), [""; 0]);
    }
}

fn dirtier_named(lab: &Trapped, name: &str) -> Process {
    let path = image("dirtier").unwrap();
    let args: Vec<&str> = ARGS.iter().map(|arg| if *arg == "d" { name } else { arg }).collect();
    let vm = lab.vmms[0].run(&path, &args).unwrap();
    vm.wait_for_line("passes=", TIMEOUT).unwrap();
    vm
}

/// During post-copy, threads that cannot make a VM any more still listen for its source.
#[test]
#[cfg(debug_assertions)]
fn threads_that_wait_for_a_source_have_only_the_rights_for_that() {
    let Some(lab) = Trapped::new("rights while memory follows") else { return };
    let [here, there] = &lab.vmms;
    let inet = [libc::AF_INET as u64, libc::SOCK_STREAM as u64, 0];
    let unix = [libc::AF_UNIX as u64, libc::SOCK_STREAM as u64, 0];
    let fork = [libc::SIGCHLD as u64, 0, 0];
    let tap = [0, 0x4004_54ca, 0]; // TUNSETIFF
    let create_vm = [0, 0xae01, 0]; // KVM_CREATE_VM
    for (thread, call, args) in [
        ("accept", libc::SYS_openat, [0; 3]),
        ("accept", libc::SYS_clone, fork),
        ("accept", libc::SYS_ioctl, tap),
        ("receive", libc::SYS_openat, [0; 3]),
        ("receive", libc::SYS_socket, inet),
        ("receive", libc::SYS_socket, unix),
        ("receive", libc::SYS_ioctl, tap),
        ("receive", libc::SYS_ioctl, create_vm),
        ("receive", libc::SYS_userfaultfd, [0; 3]),
    ] {
        let source = dirtier(&lab, "source.following=stop@2");
        let mut received = there.receive(7000, &[]).unwrap();
        let url = there.url(7000);
        let mut command = here.command(&["migrate", "d", &url, "--mode", "hybrid"]).unwrap();
        command.args(["--bandwidth", "40MB"]);
        let _migrate = Process::start(command).unwrap();
        source.wait_for_line("fail point source.following: Stop", TIMEOUT).unwrap();
        let filters = if thread == "accept" { "2" } else { "3" };
        let deadline = Instant::now() + TIMEOUT;
        let status = loop {
            let threads = threads(received.pid());
            if threads[thread]["Seccomp_filters"] == filters
                && threads["accept"]["Seccomp_filters"] == "2"
            {
                break threads[thread].clone();
            }
            assert!(Instant::now() < deadline, "{thread} keeps its rights");
            std::thread::yield_now();
        };
        // Except the right to set priorities, where the host requires that.
        let capabilities = u64::from_str_radix(&status["CapPrm"], 16).unwrap();
        assert_eq!(capabilities & !(1 << 23), 0, "{thread}");
        let tid = Pid::from_raw(status["Pid"].parse().unwrap());
        put_call(tid, call, args);
        ptrace::detach(tid, None::<Signal>).unwrap();
        let ended = received.wait(TIMEOUT).unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(ended.signal(), Some(libc::SIGSYS), "{thread}, call {call}");
    }
}
