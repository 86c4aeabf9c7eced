//! Recorded guests are replayed: the same exits, packets, memory and registers (rule R8).

mod copies;
mod corpus;
mod debugged;
mod flips;
mod gdb;
mod network;
mod recorded;

use recorded::{EVERY, SOME, boot, ends_alike};
use testkit::guest::kvm;
use vmm_lite_lab::images::image;

#[test]
fn a_program_runs_the_same_again() {
    if !kvm() {
        return;
    }
    let recorded = boot(&image("hello").unwrap(), 16 << 20, &[], EVERY);
    let _ = recorded.vm.wait_end();
    ends_alike(&recorded.vm, &recorded.base.replay(&recorded.records));
}

#[test]
fn threads_timers_files_and_sockets_run_the_same_again() {
    if !kvm() {
        return;
    }
    let recorded = boot(&image("std-check").unwrap(), 64 << 20, &[], SOME);
    let _ = recorded.vm.wait_end();
    ends_alike(&recorded.vm, &recorded.base.replay(&recorded.records));
}

/// Hundreds of small programs in an order of their own: threads, channels, sockets over loopback,
/// timers, files, allocation until there is no memory.
#[test]
fn programs_in_any_order_run_the_same_again() {
    if !kvm() {
        return;
    }
    for seed in ["1", "2", "3"] {
        let args = ["--for", "2", "--seed", seed];
        let recorded = boot(&image("std-check").unwrap(), 64 << 20, &args, SOME);
        let _ = recorded.vm.wait_end();
        ends_alike(&recorded.vm, &recorded.base.replay(&recorded.records));
    }
}
