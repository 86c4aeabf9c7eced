//! How a move is to be made.

use migrate::source::{Mode, Settings};
use std::time::Duration;
use vmm_lite_interface::layout::{IMAGE_BASE, PAGE_SIZE};

/// How a move is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// How memory goes over.
    pub mode: Mode,
    /// Longest blackout, if one was named: then the move is given up rather than made with a longer
    /// one.
    pub max_blackout: Option<Duration>,
    /// Most bytes a second, while the guest runs.
    pub bandwidth: Option<u64>,
    /// How long everything up to the commit may take.
    pub timeout: Option<Duration>,
}

/// Names of the modes, as people write them.
pub const MODES: [(&str, Mode); 4] = [
    ("auto", Mode::Auto),
    ("pre-copy", Mode::PreCopy),
    ("hybrid", Mode::Hybrid),
    ("stop-and-copy", Mode::StopAndCopy),
];

impl Options {
    /// As the machine takes them.
    #[must_use]
    pub fn settings(self) -> Settings {
        let usual = Settings::default();
        Settings {
            mode: self.mode,
            max_blackout: self.max_blackout.unwrap_or(usual.max_blackout),
            strict: self.max_blackout.is_some(),
            timeout: self.timeout,
            first_that_follows: (IMAGE_BASE / PAGE_SIZE) as usize,
            ..usual
        }
    }
}
