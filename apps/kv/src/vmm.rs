//! What a test of moves looks at: a number that is only in this memory, time that goes on, and the moves the program was told of.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Drawn and taken at the start.
#[derive(Debug)]
pub struct Vmm {
    nonce: [u64; 3],
    started: Instant,
    started_ms: u64,
    moves: Arc<Moves>,
}

/// What the hook counts, on a thread of its own. Natively it is never called.
#[derive(Debug, Default)]
struct Moves {
    count: AtomicU64,
    last_away_ns: AtomicU64,
    /// How often it became another.
    copies: AtomicU64,
    /// A number drawn when it last did.
    drawn: AtomicU64,
}

impl Moves {
    fn watch() -> Arc<Self> {
        use vmm_lite_hooks::Reason::{Forked, Migrated, Restored, TakenOver};
        let moves = Arc::<Self>::default();
        let counted = Arc::clone(&moves);
        vmm_lite_hooks::on_resume(move |resume| {
            if matches!(resume.reason, Migrated | TakenOver) {
                let away = u64::try_from(resume.away.as_nanos()).unwrap_or(u64::MAX);
                counted.last_away_ns.store(away, Ordering::Relaxed);
                counted.count.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(resume.reason, Restored | Forked) {
                // A thread draws once for all that it hashes, so that only a new one draws anew.
                let drawn = std::thread::spawn(|| RandomState::new().hash_one(0)).join();
                counted.drawn.store(drawn.unwrap_or(0), Ordering::Relaxed);
                counted.copies.fetch_add(1, Ordering::Relaxed);
            }
        });
        moves
    }
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
            moves: Moves::watch(),
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

    /// How often the program was moved to another host.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves.count.load(Ordering::Relaxed)
    }

    /// How often the program found that it had become a copy, restored or forked.
    #[must_use]
    pub fn copies(&self) -> u64 {
        self.moves.copies.load(Ordering::Relaxed)
    }

    /// A random number drawn when it last did: 16 hexadecimal digits.
    #[must_use]
    pub fn drawn(&self) -> String {
        format!("{:016x}", self.moves.drawn.load(Ordering::Relaxed))
    }

    /// How long the last move kept it from running.
    #[must_use]
    pub fn last_away(&self) -> Duration {
        Duration::from_nanos(self.moves.last_away_ns.load(Ordering::Relaxed))
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
