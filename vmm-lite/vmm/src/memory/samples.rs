//! The ring of samples in guest memory: see [`vmm_lite_interface::samples`].

use super::GuestRam;
use std::{
    fmt,
    ops::Range,
    sync::atomic::{
        AtomicU64,
        Ordering::{Relaxed, SeqCst},
    },
};
use vmm_lite_interface::{
    layout::{PAGE_SIZE, SAMPLE_SLOTS, SAMPLE_SLOTS_AT, SAMPLES, SAMPLES_END},
    samples::{OFF, RECORD, REPLAY, SampleRing},
};

/// The pages of the ring, which are not part of a guest's state: they are not copied anywhere.
pub(crate) const RING: Range<usize> =
    (SAMPLES / PAGE_SIZE) as usize..(SAMPLES_END / PAGE_SIZE) as usize;

/// A guest that claims to have taken more samples than its ring holds.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("the guest claims {0} samples in a ring of {SAMPLE_SLOTS}")]
pub struct TooMany(
    /// Its claim.
    pub u64,
);

/// The ring. All but [`interrupt`](Self::interrupt) is for a guest that does not run.
#[derive(Clone, Copy)]
pub struct Samples<'r> {
    ring: &'r SampleRing,
    slots: &'r [AtomicU64; SAMPLE_SLOTS as usize],
}

impl fmt::Debug for Samples<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Samples").field("ring", self.ring).finish_non_exhaustive()
    }
}

impl GuestRam {
    /// The ring of samples.
    #[must_use]
    pub fn samples(&self) -> Samples<'_> {
        // SAFETY: both lie inside RAM, whose size was checked to be above IMAGE_BASE, and are
        // aligned; they have only atomics, for which any bit pattern is valid and which the guest
        // may change at any time. The mapping lives as long as `self`.
        unsafe {
            let ring = &*self.host_address().add(SAMPLES as usize).cast();
            let slots = &*self.host_address().add(SAMPLE_SLOTS_AT as usize).cast();
            Samples { ring, slots }
        }
    }
}

impl Samples<'_> {
    /// The guest takes samples from the CPU, and they are not stored.
    pub fn turn_off(self) {
        self.set(OFF, 0);
    }

    /// They are stored from now on, as many as there is room for.
    pub fn record(self) {
        self.set(RECORD, SAMPLE_SLOTS);
    }

    /// The guest gets these from now on, and then exits.
    ///
    /// # Panics
    /// If there are more than the ring holds.
    pub fn replay(self, samples: &[u64]) {
        let slots = &self.slots[..samples.len()];
        slots.iter().zip(samples).for_each(|(slot, sample)| slot.store(*sample, Relaxed));
        self.set(REPLAY, samples.len() as u64);
    }

    fn set(self, mode: u64, limit: u64) {
        self.ring.mode.store(mode, SeqCst);
        self.ring.position.store(0, SeqCst);
        self.ring.limit.store(limit, SeqCst);
    }

    /// How many samples the guest has taken.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn count(self) -> Result<usize, TooMany> {
        match self.ring.position.load(SeqCst) {
            count @ 0..=SAMPLE_SLOTS => Ok(count as usize),
            count => Err(TooMany(count)),
        }
    }

    /// Takes the stored samples off the ring.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take(self) -> Result<Vec<u64>, TooMany> {
        let count = self.count()?;
        self.ring.position.store(0, SeqCst);
        Ok(self.slots[..count].iter().map(|slot| slot.load(Relaxed)).collect())
    }

    /// Has a guest that is being recorded exit when it takes the next sample, also while it runs.
    pub fn interrupt(self) {
        self.ring.limit.store(0, SeqCst);
    }

    /// Undoes [`interrupt`](Self::interrupt), for a guest that is being recorded.
    pub fn uninterrupt(self) {
        self.ring.limit.store(SAMPLE_SLOTS, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_stored_and_taken_and_a_false_count_is_refused() {
        let ram = GuestRam::new(2 << 20).unwrap();
        let samples = ram.samples();
        samples.record();
        samples.slots[0].store(7, SeqCst);
        samples.slots[1].store(9, SeqCst);
        samples.ring.position.store(2, SeqCst);
        assert_eq!(samples.take(), Ok(vec![7, 9]));
        assert_eq!(samples.take(), Ok(vec![]));
        samples.ring.position.store(SAMPLE_SLOTS + 1, SeqCst);
        assert_eq!(samples.take(), Err(TooMany(SAMPLE_SLOTS + 1)));
        samples.replay(&[1, 2, 3]);
        assert_eq!(samples.ring.limit.load(SeqCst), 3);
        assert_eq!(samples.count(), Ok(0));
    }
}
