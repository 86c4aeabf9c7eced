//! A guest can reuse its memory for any purpose: stacks, large blocks, connections.

use super::{LONG, app, command, run, text};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use vmm_lite_lab::{images::vmm_lite, process::Process};

/// Checks that need much memory, and have freed all of it at their end.
const HUNGRY: [&str; 8] = [
    "threads.two_thousand_at_once",
    "tcp.bulk_one_way",
    "tcp.bulk_both_ways",
    "mio.write_becomes_possible",
    "exhaustion.memory",
    "exhaustion.threads_after_memory",
    "collections",
    "alloc",
];

fn only(checks: &[&'static str]) -> Vec<&'static str> {
    checks.iter().flat_map(|check| ["--only", check]).collect()
}

#[test]
fn a_large_block_finds_room_where_thousands_of_stacks_were() {
    let Some(image) = app("memory after stacks", "std-check") else { return };
    // The stacks of the first leave enough for the second, except one that is in use.
    let args = only(&["threads.two_thousand_at_once", "tcp.bulk_one_way"]);
    let out = run(&image, &["--memory", "48M"], &args, b"");
    assert!(out.status.success(), "{}", text(&out.stdout));
}

#[test]
fn freed_memory_serves_any_use_in_any_order() {
    let Some(image) = app("memory in any order", "std-check") else { return };
    for seed in ["1", "2", "3"] {
        let args = [&only(&HUNGRY)[..], &["--for", "1", "--seed", seed]].concat();
        let out = run(&image, &["--memory", "48M"], &args, b"");
        assert!(out.status.success(), "seed {seed}: {}", text(&out.stdout));
    }
}

/// Runs std-check again and again for `time`, and prints what the guest has in use and free now and
/// then. Returns the largest block that there was memory for at the end of each round, in KiB.
fn rounds(image: &Path, memory: &str, time: Duration, checks: &[&str]) -> Vec<u64> {
    let seconds = time.as_secs().to_string();
    let options = ["--name", "soak", "--memory", memory];
    let args = [&["--for", &seconds][..], checks].concat();
    let (mut command, runtime) = command(image, &options, &args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut vm = Process::start(command).unwrap();
    let begin = Instant::now();
    let mut looks = 0;
    // A round that has begun is run to its end.
    while begin.elapsed() < time {
        looks += 1;
        let next = format!("round {looks}: ");
        let round = vm.wait_for_line(&next, LONG).unwrap();
        let mut stats = Command::new(vmm_lite().unwrap());
        stats.args(["stats", "soak", "--json"]).env("XDG_RUNTIME_DIR", runtime.path());
        let stats = text(&stats.output().unwrap().stdout);
        let guest = serde_json::from_str::<serde_json::Value>(&stats)
            .map_or(serde_json::Value::Null, |stats| stats["guest"].clone());
        println!("{round}; heap: {} in use, {} free", guest["heap_used"], guest["heap_free"]);
    }
    let status = vm.wait(LONG).unwrap();
    let output = vm.output();
    let failed: Vec<&str> = output.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(status.success() && failed.is_empty(), "{status}: {failed:#?}");
    let largest = |line: &str| {
        let kib = line.rsplit_once("largest block ")?.1.split(' ').next()?;
        line.starts_with("round ").then(|| kib.parse().ok())?
    };
    output.lines().filter_map(largest).collect()
}

/// A thread that has ended leaves nothing behind. What the kernel kept of each that had an error
/// filled the memory after ten million threads, and then errors were lost.
#[test]
fn threads_that_have_ended_leave_nothing_behind() {
    let Some(image) = app("threads in turn", "std-check") else { return };
    let checks = only(&["threads.twenty_thousand_in_turn", "mio.refused"]);
    let largest = rounds(&image, "48M", Duration::from_secs(10), &checks);
    // Each round is 20,000 threads more.
    let (first, last) = (largest[0], largest[largest.len() - 1]);
    assert!(last + 256 >= first, "{first} KiB, after {} rounds {last} KiB", largest.len());
}

/// `VMM_LITE_SOAK_SECONDS` of all that std-check does, in random order.
#[test]
#[ignore = "takes long: make soak"]
fn a_mixed_load_goes_on_in_the_memory_that_it_began_in() {
    let Some(image) = app("a mixed load for long", "std-check") else { return };
    let seconds = std::env::var("VMM_LITE_SOAK_SECONDS").unwrap_or_else(|_| "1800".to_owned());
    let time = Duration::from_secs(seconds.parse().unwrap());
    // Two thousand stacks and the buffers of a thousand sockets, at once, do not fit into 64 MiB.
    let largest = rounds(&image, "128M", time, &[]);
    // In one piece, however long it ran: an eighth of the VM's memory. What lives long and was
    // allocated while little was free may lie anywhere, so it is not all that is free.
    let least = largest.iter().min().unwrap();
    assert!(*least >= 16 << 10, "the largest block had {least} KiB at the end of a round");
}
