//! Waiting for memory of a VM that has not arrived yet.

use super::arguments;
use serde_json::{Value, json};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};
use vmm::migration::progress::Progress;

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
    /// Writes the timeout into a request.
    pub fn to_request(self, request: &mut Value) {
        if let Some(timeout) = self.timeout {
            request["timeout_ns"] = json!(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// Reports on standard error what the verb waits for.
#[derive(Debug, Default)]
pub struct Teller {
    said: Option<Instant>,
}

impl Teller {
    /// Reports the wait, if `progress` is one. Returns whether it is.
    pub fn tell(&mut self, progress: &Value) -> bool {
        let Ok(Progress::Waiting { doing, .. }) = serde_json::from_value(progress.clone()) else {
            return false;
        };
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{doing}");
        } else if self.said.is_none_or(|said| said.elapsed() >= SAY) {
            self.said = Some(Instant::now());
            eprintln!("vmm-lite: {doing}");
        }
        true
    }
}
