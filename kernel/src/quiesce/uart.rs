//! Under QEMU: requests and answers as lines on the second serial port; see
//! [`vmm_lite_interface::qemu`].

use core::{
    fmt::{self, Write},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use vmm_lite_interface::qemu::{Answer, Line, Request};

use super::hooks;
use crate::{cpu::KernelCell, net, platform, time};

/// How long hooks may take, ns: a request has no deadline.
const HOOKS_TIME: u64 = 1_000_000_000;

static LINE: KernelCell<Line> = KernelCell::new(Line::new());
/// The number of the request that has not been answered.
static REQUEST: KernelCell<Option<u32>> = KernelCell::new(None);
/// Whether there is one: cheap to read.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether [`poll`] has something to do.
#[inline]
pub(super) fn requested() -> bool {
    REQUESTED.load(Relaxed) || platform::quiesce_readable()
}

/// Sees requests, and answers when it is time.
pub(super) fn poll() {
    while let Some(request) = read() {
        // A resume is for a guest that is quiescent.
        if let Request::Quiesce(number) = request {
            REQUEST.with(|r| *r = Some(number));
            REQUESTED.store(true, Relaxed);
        }
    }
    if REQUESTED.load(Relaxed) && super::ready_to_answer(HOOKS_TIME) {
        REQUESTED.store(false, Relaxed);
        if let Some(number) = REQUEST.with(Option::take) {
            answer(number);
        }
    }
}

fn answer(mut number: u32) {
    // Sends what can be sent, so that the fewest packets are left in the guest.
    let _ = net::poll(time::now_ns());
    let since = time::now_ns();
    send(Answer::Quiesced(number));
    let reason = loop {
        platform::quiesce_wait();
        match read() {
            Some(Request::Resume(for_number, reason)) if for_number == number => break reason,
            Some(Request::Quiesce(newer)) => {
                number = newer;
                send(Answer::Quiesced(number));
            }
            _ => {}
        }
    };
    platform::quiesce_end();
    hooks::start_resume(hooks::Resumed {
        reason: reason as u32,
        away_ns: time::now_ns() - since,
        generation: platform::generation(),
    });
    send(Answer::Resumed(number));
}

/// The next request of those that have arrived whole.
fn read() -> Option<Request> {
    let mut byte = [0];
    while platform::quiesce_read(&mut byte) == 1 {
        if let Some(request) = LINE.with(|line| line.push(byte[0])) {
            return Some(request);
        }
    }
    None
}

fn send(answer: Answer) {
    struct Port;
    impl Write for Port {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            platform::quiesce_write(text.as_bytes());
            Ok(())
        }
    }
    // The port takes everything.
    let _ = write!(Port, "{answer}");
}
