//! The watchdog: a thread that hangs is named in every place where an operator may look, and so is
//! its recovery; what does not hang is not reported.
#![cfg(debug_assertions)]

mod bed;
mod false_alarms;

use bed::Bed;
use nix::sys::signal::Signal;
use std::{io::Write, os::unix::net::UnixStream};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

/// A thread that hangs.
struct Case {
    /// The fail point at which it is held.
    point: &'static str,
    /// Its name.
    thread: &'static str,
    /// What the report says that it does.
    doing: &'static str,
    /// Starts the VM, whose first thread at the point is held.
    start: fn(&Bed, &str) -> Process,
    /// Makes the thread get there, with the verb that waits for it.
    provoke: fn(&Bed) -> Option<Process>,
}

const CASES: &[Case] = &[
    Case {
        point: "vcpu.stopping",
        thread: "vcpu",
        doing: "was asked to stop, and is still serving the guest",
        start: Bed::run,
        provoke: |bed| Some(bed.verb(&["pause", "d"])),
    },
    Case {
        point: "vcpu.stopping",
        thread: "vcpu",
        doing: "was asked to stop, and is still serving the guest",
        start: Bed::run,
        provoke: |bed| Some(bed.verb(&["snapshot", "d", &bed.file("d.snap")])),
    },
    Case {
        point: "vcpu.entering",
        thread: "vcpu",
        doing: "serves the guest, and does not come to an end of it",
        start: Bed::begin,
        provoke: |_| None,
    },
    Case {
        point: "control.serving",
        thread: "control",
        doing: "serves `stats`",
        start: Bed::run,
        provoke: |bed| Some(bed.verb(&["stats", "d", "--prometheus"])),
    },
    Case {
        point: "copy.begun",
        thread: "control",
        doing: "serves `snapshot`",
        start: Bed::run,
        provoke: |bed| Some(bed.verb(&["snapshot", "d", &bed.file("d.snap")])),
    },
    Case {
        point: "source.in-round",
        thread: "control",
        doing: "serves `migrate`",
        start: Bed::run,
        provoke: |bed| Some(bed.migrate()),
    },
    Case {
        point: "metrics.serving",
        thread: "metrics",
        doing: "serves --metrics",
        start: Bed::run,
        provoke: |bed| {
            let mut scraper = UnixStream::connect(bed.file("metrics")).unwrap();
            scraper.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
            None
        },
    },
    Case {
        point: "lazy.loading",
        thread: "loader",
        doing: "loads memory from a snapshot",
        start: Bed::restore_lazily,
        provoke: |_| None,
    },
];

/// Makes a thread hang, checks all reports, and lets it continue.
fn check(case: &Case) {
    let Case { point, thread, doing, start, provoke } = case;
    let Some(bed) = Bed::new(point) else { return };
    let vm = start(&bed, &format!("{point}=hold"));
    let mut verb = provoke(&bed);
    vm.wait_for_line(&format!("fail point {point}"), TIMEOUT).unwrap();
    let line = vm.wait_for_line("has not answered", TIMEOUT).unwrap();
    let named = format!("thread {thread} (");
    assert!(line.contains(&named) && line.contains(doing), "{point}: {line}");
    // Every verb that looks reports it.
    let stats = bed.json(&["stats", "d", "--json"]);
    let stalled = stats["stalled"].as_array().unwrap();
    let found = stalled.iter().find(|s| s["thread"] == *thread);
    let found = found.unwrap_or_else(|| panic!("{point}: {stats}"));
    assert_eq!(found["doing"], *doing, "{point}: {stats}");
    assert!(found["for_ms"].as_u64() >= Some(1000), "{point}: {stats}");
    assert!(stats["stalls"].as_u64() >= Some(1), "{point}: {stats}");
    let text = bed.text(&["stats", "d"]);
    // With its place in the kernel.
    assert!(text.contains(&named) && text.contains("system call futex"), "{point}: {text}");
    assert!(bed.text(&["ps"]).contains(" stalled "), "{point}");
    assert!(bed.text(&["stats", "d", "--prometheus"]).contains("stalled_threads{vm=\"d\"} 1\n"));
    // And the verb that waits for it.
    if let Some(verb) = &mut verb {
        let line = verb.wait_for_line("waiting for thread", TIMEOUT).unwrap();
        assert!(line.contains(&named) && line.contains(doing), "{point}: {line}");
        assert!(verb.is_running(), "{point}: {}", verb.output());
    }
    vm.signal(Signal::SIGCONT).unwrap();
    // A process whose VM has moved may have ended before the watchdog's next check.
    if *point != "source.in-round" {
        let line = vm.wait_for_line("answers again", TIMEOUT).unwrap();
        assert!(line.contains(&named), "{point}: {line}");
    }
    if let Some(mut verb) = verb {
        assert!(verb.wait(TIMEOUT).unwrap().success(), "{point}: {}", verb.output());
    }
    bed.goes_on();
}

#[test]
fn a_thread_that_hangs_is_reported_everywhere_and_so_is_its_recovery() {
    CASES.iter().for_each(check);
}

#[test]
fn a_process_whose_main_thread_hangs_is_reported_as_not_answering() {
    let Some(bed) = Bed::new("control.accepting") else { return };
    let vm = bed.run("control.accepting=hold");
    let mut verb = bed.verb(&["stats", "d"]);
    let line = vm.wait_for_line("has not answered", TIMEOUT).unwrap();
    assert!(line.contains("thread main (") && line.contains("takes clients"), "{line}");
    let said = verb.wait_for_line("which answers nobody", TIMEOUT).unwrap();
    assert!(said.contains(&format!("process {}", vm.pid())), "{said}");
    let figures = bed.scrape();
    assert!(figures.contains("stalled_threads{vm=\"d\"} 1\n"), "{figures}");
    assert!(figures.contains("stalls_total{vm=\"d\"} 1\n"), "{figures}");
    vm.signal(Signal::SIGCONT).unwrap();
    vm.wait_for_line("answers again", TIMEOUT).unwrap();
    assert!(verb.wait(TIMEOUT).unwrap().success(), "{}", verb.output());
    bed.goes_on();
}

#[test]
fn a_stopped_process_is_reported_as_stopped() {
    let Some(bed) = Bed::new("a process that is stopped") else { return };
    let vm = bed.run("");
    vm.signal(Signal::SIGSTOP).unwrap();
    let mut verb = bed.verb(&["stats", "d"]);
    let said = verb.wait_for_line("which answers nobody", TIMEOUT).unwrap();
    assert!(said.contains("T (stopped)"), "{said}");
    vm.signal(Signal::SIGCONT).unwrap();
    assert!(verb.wait(TIMEOUT).unwrap().success(), "{}", verb.output());
    bed.goes_on();
}

#[test]
fn a_vm_that_cannot_be_ended_as_its_vcpu_hangs_still_answers() {
    let Some(bed) = Bed::new("a signal while the vCPU hangs") else { return };
    let mut vm = bed.run("vcpu.stopping=hold");
    vm.signal(Signal::SIGTERM).unwrap();
    vm.wait_for_line("has not answered", TIMEOUT).unwrap();
    let stats = bed.json(&["stats", "d", "--json"]);
    assert_eq!(stats["stalled"][0]["thread"], "vcpu", "{stats}");
    vm.signal(Signal::SIGCONT).unwrap();
    assert_eq!(vm.wait(TIMEOUT).unwrap().code(), Some(143), "{}", vm.output());
}
