//! Memory of a VM that is not here yet, which a verb waits for.

use super::arguments;
use serde_json::{Value, json};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};
use vmm::migration::progress::Progress;

/// How often it is said on what is no terminal.
const SAY: Duration = Duration::from_secs(10);

/// How long to wait.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Give up if memory that still follows the VM from another host, or is still being loaded from
    /// a snapshot, is not here by then; it is waited for first [default: none]
    #[arg(long, value_name = "TIME", value_parser = arguments::duration)]
    timeout: Option<Duration>,
}

impl Wait {
    /// Writes it into a request.
    pub fn to_request(self, request: &mut Value) {
        if let Some(timeout) = self.timeout {
            request["timeout_ns"] = json!(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
        }
    }
}

/// Says on standard error what is waited for.
#[derive(Debug, Default)]
pub struct Teller {
    said: Option<Instant>,
}

impl Teller {
    /// Says it, if that is what `progress` is. Whether it is.
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
