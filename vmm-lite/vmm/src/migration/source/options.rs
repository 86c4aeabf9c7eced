//! The options of a move.

use migrate::source::{Mode, Settings};
use std::time::Duration;
use vmm_lite_interface::layout::{IMAGE_BASE, PAGE_SIZE};

/// The options of a move.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// How memory is transferred.
    pub mode: Mode,
    /// Longest blackout, if one was named: the move fails rather than exceed it.
    pub max_blackout: Option<Duration>,
    /// Most bytes per second, while the guest runs.
    pub bandwidth: Option<u64>,
    /// The timeout for everything up to the commit.
    pub timeout: Option<Duration>,
}

impl Options {
    /// The options of the state machine.
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
