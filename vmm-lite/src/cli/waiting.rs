//! Waiting for memory of a VM that has not arrived yet.

use super::arguments;
use api::{Event, Progress};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// How often the wait is reported if standard error is not a terminal.
const SAY: Duration = Duration::from_secs(10);

/// Options of the wait.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Fail if memory that is still being post-copied from another host, or loaded from a snapshot,
    /// has not arrived by then; the verb waits for it first [default: none]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    timeout: Option<Duration>,
}

impl Wait {
    /// The timeout as a request has it, in ns.
    pub fn timeout_ns(self) -> Option<u64> {
        self.timeout.map(api::nanoseconds)
    }
}

/// Reports on standard error what the verb waits for.
#[derive(Debug, Default)]
pub struct Teller {
    said: Option<Instant>,
}

impl Teller {
    /// Reports the wait, if `progress` is one. Returns whether it is.
    pub fn tell(&mut self, progress: &Progress) -> bool {
        let Progress::Event(Event::Waiting { doing, .. }) = progress else { return false };
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{doing}");
        } else if self.said.is_none_or(|said| said.elapsed() >= SAY) {
            self.said = Some(Instant::now());
            eprintln!("vmm-lite: {doing}");
        }
        true
    }
}
