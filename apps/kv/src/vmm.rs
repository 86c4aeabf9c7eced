//! Data for tests of moves: a number that exists only in this memory, clocks, and the moves that
//! the kernel reported to the program.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vmm_lite_hooks::Reason;

/// Values drawn and measured at the start.
#[derive(Debug)]
pub struct Vmm {
    nonce: [u64; 3],
    started: Instant,
    started_ms: u64,
    moves: Arc<Moves>,
}

/// Counters of the hook, which runs on a thread of its own. Natively it is never called.
#[derive(Debug, Default)]
struct Moves {
    count: AtomicU64,
    last_away_ns: AtomicU64,
    /// How often the program became a copy.
    copies: AtomicU64,
    /// A number drawn when it last did.
    drawn: AtomicU64,
    /// Why it was last resumed, as an index of [`REASONS`].
    last: AtomicUsize,
}

/// Reasons by the names that INFO has for them.
const REASONS: [(&str, Reason); 6] = [
    ("resumed", Reason::Resumed),
    ("migrated", Reason::Migrated),
    ("restored", Reason::Restored),
    ("forked", Reason::Forked),
    ("taken_over", Reason::TakenOver),
    ("reverted", Reason::Reverted),
];
/// The reason before the first resume, and for an unknown one.
const NO_REASON: &str = "none";

impl Moves {
    fn watch() -> Arc<Self> {
        use Reason::{Forked, Migrated, Restored, Reverted, TakenOver};
        let moves = Arc::new(Self { last: AtomicUsize::new(REASONS.len()), ..Self::default() });
        let counted = Arc::clone(&moves);
        vmm_lite_hooks::on_resume(move |resume| {
            if matches!(resume.reason, Migrated | TakenOver) {
                let away = u64::try_from(resume.away.as_nanos()).unwrap_or(u64::MAX);
                counted.last_away_ns.store(away, Ordering::Relaxed);
                counted.count.fetch_add(1, Ordering::Relaxed);
            }
            if matches!(resume.reason, Restored | Forked | Reverted) {
                // A thread draws once for all its hashes, so only a new thread draws again.
                let drawn = std::thread::spawn(|| RandomState::new().hash_one(0)).join();
                counted.drawn.store(drawn.unwrap_or(0), Ordering::Relaxed);
                counted.copies.fetch_add(1, Ordering::Relaxed);
            }
            let last = REASONS.iter().position(|(_, reason)| *reason == resume.reason);
            counted.last.store(last.unwrap_or(REASONS.len()), Ordering::Relaxed);
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

    /// The number: 16 hexadecimal digits that are unique to this server and exist only in its
    /// memory.
    #[must_use]
    pub fn nonce(&self) -> String {
        format!("{:016x}", self.nonce[0])
    }

    /// The run's id in Redis' form: 40 hexadecimal digits.
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

    /// Why the program was last resumed.
    #[must_use]
    pub fn last_resume(&self) -> &'static str {
        REASONS.get(self.moves.last.load(Ordering::Relaxed)).map_or(NO_REASON, |(name, _)| name)
    }

    /// How often the program became a copy: restored, forked, or reverted.
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
    unix_us() / 1000
}

/// Unix time in µs.
#[must_use]
pub fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_micros() as u64)
}
