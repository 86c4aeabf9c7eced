//! How the program ends: what it has sent still leaves, then the guest ends.

use vmm_lite_interface::control::FaultKind;

use crate::{counters, fault, mm, net, platform, time};

/// Exit code of a program that panicked, as on other systems.
const PANICKED: i32 = 101;
/// Memory that the kernel needs to send what is left, bytes.
const FINISH_ROOM: usize = 256 << 10;
/// How long the end of the program waits for datagrams to leave and for what streams have sent to
/// be acknowledged, ns.
const FINISH_TIME: u64 = 10_000_000_000;
/// How long it waits without any progress, ns: as long as a neighbor is searched for.
const FINISH_NO_PROGRESS: u64 = 3_000_000_000;
/// How long the device then may take for the frames that it was given, ns.
const DEVICE_TIME: u64 = 200_000_000;

/// The program returned or exited with `code`.
pub fn exit(code: i32) -> ! {
    finish();
    platform::exit(code)
}

/// The program panicked, and the message has been printed.
pub fn panicked() -> ! {
    exit(PANICKED)
}

/// The program aborted.
pub fn abort() -> ! {
    // As elsewhere, what was sent outlives the program, however that ends. A program that aborts
    // for lack of memory leaves the kernel none to do it with: then that is what is reported.
    if mm::usage().1 >= FINISH_ROOM {
        finish();
    }
    fault::end(FaultKind::Abort)
}

/// Sends what the program has sent, and tells its peers that it ends, if that does not take long.
fn finish() {
    if !net::close_all() {
        return;
    }
    let end = time::now_ns() + FINISH_TIME;
    let (mut fewest, mut stalled) = (usize::MAX, end);
    loop {
        let now = time::now_ns();
        // Not by way of the scheduler: the program's threads are not to run any more.
        let next = net::poll(now).unwrap_or(u64::MAX);
        let left = net::unfinished();
        if left < fewest {
            (fewest, stalled) = (left, now + FINISH_NO_PROGRESS);
        }
        if left == 0 || now >= end.min(stalled) {
            break;
        }
        counters::publish();
        platform::idle(Some(next.min(end).min(stalled)));
    }
    // A device that works beside the guest would end with it.
    let end = time::now_ns() + DEVICE_TIME;
    while !net::device_has_sent_all() && time::now_ns() < end {
        platform::poll();
    }
}
