//! What a test of moves looks at: a number that is only in this memory, and time that goes on.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Drawn and taken at the start.
#[derive(Debug)]
pub struct Vmm {
    nonce: [u64; 3],
    started: Instant,
    started_ms: u64,
}

impl Vmm {
    /// A new number, and a clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        let random = RandomState::new();
        Self {
            nonce: [0, 1, 2].map(|n| random.hash_one(n)),
            started: Instant::now(),
            started_ms: unix_ms(),
        }
    }

    /// The number: 16 hexadecimal digits that no other server has, and that nothing but this memory knows.
    #[must_use]
    pub fn nonce(&self) -> String {
        format!("{:016x}", self.nonce[0])
    }

    /// As Redis identifies a run: 40 hexadecimal digits.
    #[must_use]
    pub fn run_id(&self) -> String {
        format!("{:016x}{:016x}{:08x}", self.nonce[1], self.nonce[2], self.nonce[0] >> 32)
    }

    /// Time since the start, by the monotonic clock.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// When it started, Unix time in ms.
    #[must_use]
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// How often the program was moved, as far as it was told.
    #[must_use]
    pub fn moves(&self) -> u64 {
        0
    }

    /// How long the last move kept it from running.
    #[must_use]
    pub fn last_away(&self) -> Duration {
        Duration::ZERO
    }
}

impl Default for Vmm {
    fn default() -> Self {
        Self::new()
    }
}

/// Unix time in ms.
#[must_use]
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_millis() as u64)
}
