//! The ring of samples: every value that a guest does not compute itself but takes from the CPU
//! (readings of the time stamp counter, words of its random generator).
//!
//! The guest takes them by routines of its own that go through this ring. With the ring [`OFF`],
//! they return the CPU's values. While it [records](RECORD), they also store them; while it
//! [replays](REPLAY), they return what the VMM has stored. Where `position` has reached `limit`,
//! the routine rings [`Doorbell::SAMPLES`](crate::doorbell::Doorbell::SAMPLES) and begins anew.
//! What the guest leaves in registers and memory does not depend on the mode, except for the ring
//! itself, which lies outside of its state.

use core::sync::atomic::AtomicU64;

/// Set in a sample that is a random word, and clear in a reading of the time stamp counter.
pub const RANDOM: u64 = 1 << 63;

/// [`SampleRing::mode`]: the CPU's values are returned, and not stored.
pub const OFF: u64 = 0;
/// [`SampleRing::mode`]: the CPU's values are returned and stored.
pub const RECORD: u64 = 1;
/// [`SampleRing::mode`]: the stored values are returned.
pub const REPLAY: u64 = 2;

/// Header of the ring. Its slots are at [`SAMPLE_SLOTS_AT`](crate::layout::SAMPLE_SLOTS_AT).
#[repr(C)]
#[derive(Debug, Default)]
pub struct SampleRing {
    /// [`OFF`], [`RECORD`] or [`REPLAY`]. Changes only while the vCPU is stopped.
    pub mode: AtomicU64,
    /// How many slots the guest has used: the next sample's slot. The VMM sets it to 0 while the
    /// vCPU is stopped.
    pub position: AtomicU64,
    /// At which position the guest rings the doorbell; at most
    /// [`SAMPLE_SLOTS`](crate::layout::SAMPLE_SLOTS). The VMM may set it to 0 while the guest runs,
    /// which then exits at its next sample.
    pub limit: AtomicU64,
}
