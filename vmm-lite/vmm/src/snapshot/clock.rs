//! What becomes of a guest's clock while it is in a file.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How the monotonic clock of a guest goes on that comes from a file. The wall clock is the host's
/// either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestClock {
    /// From where it was: no timeout runs out and no tick comes due while the guest is in a file
    #[default]
    Continue,
    /// As if the guest had waited: all that has come due meanwhile is due when it runs
    Jump,
}

impl GuestClock {
    /// How far the monotonic clock goes on for a guest that was in a file for `away`.
    #[must_use]
    pub fn passes(self, away: Duration) -> Duration {
        match self {
            Self::Continue => Duration::ZERO,
            Self::Jump => away,
        }
    }
}
