//! A guest's memory is of use for whatever comes next: stacks, large blocks, connections.

use super::{LONG, app, command, run, text};
use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use vmm_lite_lab::{images::vmm_lite, process::Process};

/// What wants memory, and has given all of it back when it ends.
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
    // The stacks of the first leave what the second needs, but for one that is in use.
    let args = only(&["threads.two_thousand_at_once", "tcp.bulk_one_way"]);
    let out = run(&image, &["--memory", "48M"], &args, b"");
    assert!(out.status.success(), "{}", text(&out.stdout));
}

#[test]
fn memory_serves_whatever_comes_next_in_any_order() {
    let Some(image) = app("memory in any order", "std-check") else { return };
    for seed in ["1", "2", "3"] {
        let args = [&only(&HUNGRY)[..], &["--for", "1", "--seed", seed]].concat();
        let out = run(&image, &["--memory", "48M"], &args, b"");
        assert!(out.status.success(), "seed {seed}: {}", text(&out.stdout));
    }
}

/// `VMM_LITE_SOAK_SECONDS` of all that std-check does, in random order. Prints what the guest has
/// in use and free, and its largest block, after each round.
#[test]
#[ignore = "takes long: make soak"]
fn a_mixed_load_goes_on_in_the_memory_that_it_began_in() {
    let Some(image) = app("a mixed load for long", "std-check") else { return };
    let seconds = std::env::var("VMM_LITE_SOAK_SECONDS").unwrap_or_else(|_| "1800".to_owned());
    let time = Duration::from_secs(seconds.parse().unwrap());
    // Two thousand stacks and the buffers of a thousand sockets, at once, do not fit into 64 MiB.
    let options = ["--name", "soak", "--memory", "128M"];
    let (mut command, runtime) = command(&image, &options, &["--for", &seconds]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut vm = Process::start(command).unwrap();
    let begin = Instant::now();
    let mut largest = Vec::new();
    // A round that has begun is run to its end.
    while begin.elapsed() < time {
        let next = format!("round {}: ", largest.len() + 1);
        let round = vm.wait_for_line(&next, LONG).unwrap();
        let mut stats = Command::new(vmm_lite().unwrap());
        stats.args(["stats", "soak", "--json"]).env("XDG_RUNTIME_DIR", runtime.path());
        let stats = text(&stats.output().unwrap().stdout);
        let guest = serde_json::from_str::<serde_json::Value>(&stats)
            .map_or(serde_json::Value::Null, |stats| stats["guest"].clone());
        println!("{round}; heap: {} in use, {} free", guest["heap_used"], guest["heap_free"]);
        let kib = round.rsplit("largest block ").next().and_then(|l| l.split(' ').next());
        largest.push(kib.unwrap().parse::<u64>().unwrap());
    }
    let status = vm.wait(LONG).unwrap();
    let output = vm.output();
    let failed: Vec<&str> = output.lines().filter(|line| line.starts_with("FAIL")).collect();
    assert!(status.success() && failed.is_empty(), "{status}: {failed:#?}");
    // In one piece, however long it ran: an eighth of the VM's memory. What lives long and was
    // allocated while little was free may lie anywhere, so it is not all that is free.
    let least = largest.iter().min().unwrap();
    assert!(*least >= 16 << 10, "the largest block had {least} KiB at the end of a round");
}
