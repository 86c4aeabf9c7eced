//! Post-copy: the memory arrives intact, and survives a broken link.

use migrate::wire::Kind;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    path::PathBuf,
    sync::mpsc::{Receiver, channel},
};
use vmm_lite_lab::{
    images::image,
    process::Process,
    relay::{Fate, Relay},
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// Pages that are rewritten all the time: too many for any blackout of a millisecond.
const PAGES: &str = "2048";
/// A first round that takes a good part of a second, in which the guest rewrites all of them,
/// however busy the host is.
const SLOWLY: [&str; 2] = ["--bandwidth", "40MB"];
const PACE: u64 = 40_000_000;

fn lab(test: &str) -> Option<(Site, [Vmm; 2], PathBuf)> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    Some((site, vmms, image("dirtier").unwrap()))
}

fn dirtier(vmm: &Vmm, image: &std::path::Path) -> Process {
    let args = ["--name", "d", "--memory", "32M", "--", "--pages", PAGES];
    let vm = vmm.run(image, &args).unwrap();
    vm.wait_for_line("passes=", TIMEOUT).unwrap();
    vm
}

/// The guest's self-checking memory is intact, some passes later.
fn is_whole(vm: &Process) {
    let line = vm.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}

fn number(report: &Value, key: &str) -> u64 {
    report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"))
}

#[test]
fn post_copy_memory_arrives_intact() {
    let Some((_site, vmms, image)) = lab("memory that follows") else { return };
    let mut vm = dirtier(&vmms[0], &image);
    for (n, mode) in ["hybrid", "auto", "hybrid", "auto", "hybrid", "stop-and-copy", "pre-copy"]
        .into_iter()
        .enumerate()
    {
        let (from, to) = (&vmms[n % 2], &vmms[(n + 1) % 2]);
        let there = to.receive(7000, &[]).unwrap();
        let url = to.url(7000);
        let mut args = vec!["migrate", "d", &url, "--json", "--mode", mode];
        args.extend(SLOWLY);
        let report = from.json(&args).unwrap();
        assert!(vm.wait(TIMEOUT).unwrap().success(), "{}", vm.output());
        // Pages sent while the guest ran respected the rate limit; in stop-and-copy mode there are
        // none.
        let unpaced = number(&report, "pages_following") + number(&report, "last_pages");
        let paced = number(&report, "bytes_sent").saturating_sub(4096 * unpaced);
        let least = paced * 1_000_000_000 / PACE;
        assert!(
            mode == "stop-and-copy" || number(&report, "total_ns") > least * 4 / 5,
            "{mode}: {report}"
        );
        let follows = number(&report, "pages_following") > 0;
        assert_eq!(number(&report, "following_ns") > 0, follows, "{mode}: {report}");
        match mode {
            "hybrid" => assert!(follows, "{report}"),
            // That depends on how much CPU time the guest got.
            "auto" => {}
            _ => assert!(!follows, "{mode}: {report}"),
        }
        vm = there;
        is_whole(&vm);
    }
}

/// A relay that breaks the link between the pages with these numbers, counted from the commit;
/// reports each break.
fn breaking(site: &Site, to: &Vmm, at: Vec<usize>) -> (Relay, Receiver<()>) {
    let (tell, broken) = channel();
    let target = format!("{}:7000", to.host().migration_ip);
    let (mut committed, mut pages) = (false, 0);
    let relay = Relay::start(&site.hosts[0].ns, target, move |passing| {
        committed |= passing.kind == Kind::Commit;
        if !committed || passing.kind != Kind::Pages {
            return Fate::Pass;
        }
        pages += 1;
        if !at.contains(&pages) {
            return Fate::Pass;
        }
        tell.send(()).unwrap();
        Fate::CutWithin
    });
    (relay.unwrap(), broken)
}

#[test]
fn a_link_that_breaks_during_post_copy_is_reconnected() {
    let Some((site, vmms, image)) = lab("a link that breaks while memory follows") else { return };
    let mut source = dirtier(&vmms[0], &image);
    let there = vmms[1].receive(7000, &["--plaintext"]).unwrap();
    let (relay, broken) = breaking(&site, &vmms[1], vec![2, 10, 20]);
    let to = relay.url();
    let mut args = vec!["migrate", "d", &to, "--json", "--mode", "hybrid", "--plaintext"];
    args.extend(SLOWLY);
    let report = vmms[0].json(&args).unwrap();
    for n in 0..3 {
        let broke = broken.recv_timeout(TIMEOUT).is_ok();
        assert!(broke, "break {n}: {report}\n{}\n{}", source.output(), there.output());
    }
    assert!(number(&report, "pages_following") > 100, "{report}");
    assert!(source.wait(TIMEOUT).unwrap().success(), "{}", source.output());
    is_whole(&there);
    assert_eq!(there.output().matches("the source is back").count(), 3, "{}", there.output());
}

/// `Running` never reaches the source, which learns the outcome from its query: the time for which
/// the VM depended on both hosts is reported all the same.
#[test]
fn the_duration_of_post_copy_is_known_where_the_blackout_is_not() {
    let Some((site, vmms, image)) = lab("a lost word that the VM runs") else { return };
    let mut source = dirtier(&vmms[0], &image);
    let there = vmms[1].receive(7000, &["--plaintext"]).unwrap();
    let target = format!("{}:7000", vmms[1].host().migration_ip);
    let relay = Relay::start(&site.hosts[0].ns, target, |passing| match passing.kind {
        Kind::Running => Fate::CutBefore,
        _ => Fate::Pass,
    })
    .unwrap();
    let to = relay.url();
    let args = ["migrate", "d", &to, "--mode", "hybrid", "--plaintext", "--json"];
    let report = vmms[0].json(&[&args[..], &SLOWLY].concat()).unwrap();
    for unknown in ["blackout_ns", "phases", "apply_ns", "run_ns"] {
        assert!(report[unknown].is_null(), "{unknown}: {report}");
    }
    assert!(number(&report, "pages_following") > 100, "{report}");
    let window = number(&report, "following_ns");
    assert!(window > 0 && window < number(&report, "total_ns"), "{report}");
    assert!(source.wait(TIMEOUT).unwrap().success(), "{}", source.output());
    is_whole(&there);
    // The destination knows it by its own clock. The source's value is longer: it counts from the
    // commit.
    let said = there.output();
    let whole = said.split("all memory is here, ").nth(1).and_then(|rest| rest.split(' ').next());
    let here: f64 = whole.unwrap_or_else(|| panic!("{said}")).parse().unwrap();
    assert!(here > 0.0 && here * 1e6 < window as f64 + 1e5, "{here} ms: {report}");
}

#[test]
fn pages_lost_with_a_source_that_dies_during_post_copy_are_listed() {
    let Some((site, vmms, image)) = lab("a source that dies while memory follows") else { return };
    for limit in [true, false] {
        let source = dirtier(&vmms[0], &image);
        let limited = &["--plaintext", "--lost-after", "500ms"][..];
        let args = if limit { limited } else { &limited[..1] };
        let mut there = vmms[1].receive(7000, args).unwrap();
        let (relay, broken) = breaking(&site, &vmms[1], vec![2]);
        let to = relay.url();
        let mut command = vmms[0]
            .command(&["migrate", "d", &to, "--json", "--mode", "hybrid", "--plaintext"])
            .unwrap();
        command.args(SLOWLY);
        let mut migrate = command.stdout(std::process::Stdio::null()).spawn().unwrap();
        broken.recv_timeout(TIMEOUT).expect("the link broke");
        source.signal(Signal::SIGKILL).unwrap();
        assert!(!migrate.wait().unwrap().success());
        // At once, whether or not the source could still return.
        let line = there.wait_for_line("missing (guest-physical page numbers): 0x", TIMEOUT);
        assert!(line.is_ok(), "{}", there.output());
        let code = if limit {
            125
        } else {
            // Without a limit it waits, and is not declared lost until it is stopped.
            assert!(there.is_running(), "{}", there.output());
            vmms[1].json(&["stop", "d", "--json"]).unwrap();
            128 + 15
        };
        let status = there.wait(TIMEOUT).unwrap();
        let said = there.output();
        assert_eq!(status.code(), Some(code), "{said}");
        assert_eq!(said.contains("the VM is lost"), limit, "{said}");
    }
}

/// The network reports nothing: no packet arrives any more, for longer than a link is considered
/// alive.
#[test]
#[cfg(debug_assertions)]
fn a_source_that_falls_silent_during_post_copy_is_waited_for() {
    use nix::{sys::signal::kill, unistd::Pid};
    const TEST: &str = "a source that falls silent while memory follows";
    let Some((site, vmms, image)) = lab(TEST) else { return };
    let mut source = dirtier(&vmms[0], &image);
    let url = vmms[1].url(7000);
    let mut receive = vmms[1].command(&["receive", "--listen", &url, "--plaintext"]).unwrap();
    receive.env(vmm::fail_point::TIMEOUT, "1s");
    let there = Process::start(receive).unwrap();
    there.wait_for_line("listening", TIMEOUT).unwrap();
    let pid = Pid::from_raw(source.pid().cast_signed());
    let target = format!("{}:7000", vmms[1].host().migration_ip);
    let (mut committed, mut pages) = (false, 0);
    let relay = Relay::start(&site.hosts[0].ns, target, move |passing| {
        committed |= passing.kind == Kind::Commit;
        pages += u32::from(committed && passing.kind == Kind::Pages);
        if pages == 2 {
            kill(pid, Signal::SIGSTOP).unwrap();
            pages += 1;
        }
        Fate::Pass
    })
    .unwrap();
    let to = relay.url();
    let args = ["migrate", "d", &to, "--json", "--mode", "hybrid", "--plaintext"];
    let migrate = vmms[0].command(&[&args[..], &SLOWLY].concat()).unwrap();
    let mut migrate = Process::start(migrate).unwrap();
    let line = there.wait_for_line("the source fell silent", TIMEOUT);
    let said = || format!("{}\n{}\n{}", source.output(), there.output(), migrate.output());
    assert!(line.unwrap_or_else(|_| panic!("{}", said())).contains("until it is back"));
    there.wait_for_line("missing (guest-physical page numbers): 0x", TIMEOUT).unwrap();
    source.signal(Signal::SIGCONT).unwrap();
    let back = there.wait_for_line("the source is back", TIMEOUT);
    assert!(back.is_ok(), "{}", said());
    assert!(migrate.wait(TIMEOUT).unwrap().success(), "{}", migrate.output());
    assert!(source.wait(TIMEOUT).unwrap().success(), "{}", source.output());
    is_whole(&there);
}

/// `vmm-lite receive` as a user who may not open the device for page faults; nor may root on a host
/// without it.
fn receive_as_nobody(vmm: &Vmm, has_device: bool) -> Process {
    let hide = "mount --bind $0 $0 && mount -o remount,bind,nodev $0 && exec \"$@\"";
    let url = vmm.url(7000);
    let user = ["--user", "65534", "--group", "65534", "--seccomp", "trap"];
    let args = [&["receive", "--listen", &url, "--name", "d"][..], &user].concat();
    let plain = vmm.command(&args).unwrap();
    if has_device {
        let process = Process::start(plain).unwrap();
        process.wait_for_line("listening", TIMEOUT).unwrap();
        return process;
    }
    let mut hidden = vmm.host().ns.command("unshare");
    hidden.args(["-m", "sh", "-c", hide, "/dev/userfaultfd"]).arg(plain.get_program()).args(&args);
    hidden.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let process = Process::start(hidden).unwrap();
    process.wait_for_line("listening", TIMEOUT).unwrap();
    process
}

#[test]
fn post_copy_works_in_a_process_that_has_given_up_root() {
    const TEST: &str = "memory that follows to another user";
    if !nix::unistd::geteuid().is_root() {
        return vmm_lite_lab::skipped(TEST, "only root can become another user");
    }
    let open = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd");
    if open.is_ok_and(|open| open.trim() == "1") {
        return vmm_lite_lab::skipped(TEST, "here any user may serve page faults");
    }
    let Some((_site, vmms, image)) = lab(TEST) else { return };
    for has_device in [true, false] {
        let mut source = dirtier(&vmms[0], &image);
        let there = receive_as_nobody(&vmms[1], has_device);
        let url = vmms[1].url(7000);
        let args = ["migrate", "d", &url, "--json"];
        // A failed move leaves what the next one needs.
        let crawling = [&args[..], &["--mode", "pre-copy", "--bandwidth", "400KB"]].concat();
        let mut fails = Process::start(vmms[0].command(&crawling).unwrap()).unwrap();
        fails.wait_for_line("copying", TIMEOUT).unwrap();
        vmms[0].json(&["cancel", "d", "--json"]).unwrap();
        there.wait_for_line("waiting for the next", TIMEOUT).unwrap();
        assert!(!fails.wait(TIMEOUT).unwrap().success(), "{}", fails.output());
        let hybrid = [&args[..], &["--mode", "hybrid"], &SLOWLY].concat();
        let report = vmms[0].json(&hybrid).unwrap();
        assert!(number(&report, "pages_following") > 100, "{report}");
        assert!(source.wait(TIMEOUT).unwrap().success(), "{}", source.output());
        is_whole(&there);
        let status = std::fs::read_to_string(format!("/proc/{}/status", there.pid())).unwrap();
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        // And it can be copied while it runs, for which userfaultfd is used again.
        let file = tempfile::NamedTempFile::new().unwrap();
        let args = ["snapshot", "d", file.path().to_str().unwrap(), "--mode", "copy-on-write"];
        let copied = vmms[1].json(&[&args[..], &["--json"]].concat());
        assert_eq!(copied.unwrap()["mode"], "copy-on-write", "device: {has_device}");
        vmms[1].json(&["stop", "d", "--json"]).unwrap();
        let mut there = there;
        there.wait(TIMEOUT).unwrap();
        assert!(!there.output().contains("made the system call"), "{}", there.output());
    }
}
