//! The guest's clock while it is in a file.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How the monotonic clock of a guest from a file continues. The wall clock is the host's in both
/// cases.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuestClock {
    /// From where it was: no timeout expires and no tick is due while the guest is in a file
    #[default]
    Continue,
    /// As if the guest had waited: everything that became due meanwhile is due when it runs
    Jump,
}

impl GuestClock {
    /// How far the monotonic clock advances for a guest that was in a file for `away`.
    #[must_use]
    pub fn passes(self, away: Duration) -> Duration {
        match self {
            Self::Continue => Duration::ZERO,
            Self::Jump => away,
        }
    }
}
