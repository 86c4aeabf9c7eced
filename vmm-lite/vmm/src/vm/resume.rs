//! What is written for the guest before it runs (again), and the resume itself.

use super::{Error, Paused, ResumeReason};
use crate::{devices::net::Net, host::random, vcpu::Runner};
use migrate::input_log::News;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

/// How a VM is resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resume {
    /// Why it runs, as reported to the guest.
    pub reason: ResumeReason,
    /// How much the guest's clock advanced while it did not run, as reported to the guest. (The
    /// clock itself is advanced by [`Paused::apply`].)
    pub away: Duration,
}

impl Paused<'_> {
    /// Lets the VM run, unless the operator wants it paused: then it stays so, and the guest gets
    /// the reason when it runs.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was stopped meanwhile, [`Error::HandedOver`]; or the host's error if
    /// it provides no random numbers.
    pub fn resume(mut self, how: Resume) -> Result<(), Error> {
        let shared = &self.vm().shared;
        shared.may_end()?;
        use ResumeReason::{Boot, Forked, Migrated, Restored, Resumed, Reverted};
        let reason = {
            let mut decided = shared.decisions.lock();
            match (how.reason, decided.untold.take()) {
                (Resumed, Some(untold)) => untold,
                (Resumed, None) if decided.stays_paused() => return Ok(()),
                (reason, _) => reason,
            }
        };
        let new_generation = matches!(reason, Boot | Restored | Forked | Reverted);
        // The operation that paused it may have copied its memory: a snapshot, a template of
        // clones, a failed move. A successful move leaves no other copy.
        let may_be_copied = reason != Migrated;
        let fresh = may_be_copied.then(|| Fresh::draw(new_generation)).transpose()?;
        self.before_resume(reason, how.away, fresh.as_ref());
        let vcpus = &shared.vcpus;
        vcpus.entered.forget();
        let stays_paused = || {
            let stays = shared.decisions.lock().stays_paused();
            // Counted before it can run: see `Vm::unstarted_memory`.
            vcpus.resumes.fetch_add((!stays).into(), SeqCst);
            stays
        };
        let runs = vcpus.control.run(stays_paused).map_err(|not| shared.not_held(not))?;
        if runs {
            self.runs = true;
        } else {
            shared.decisions.lock().untold = Some(reason).filter(|reason| *reason != Resumed);
        }
        Ok(())
    }

    /// Resumes a VM that was paused here and did not leave, unless the operator wants it paused.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub fn resume_here(self) -> Result<(), Error> {
        let away = self.stopped_for();
        self.resume(Resume { reason: ResumeReason::Resumed, away })
    }

    /// Tells the guest what it needs to know when it runs (again).
    fn before_resume(&mut self, reason: ResumeReason, away: Duration, fresh: Option<&Fresh>) {
        let ram = Arc::clone(self.vm().ram());
        let (devices, runner) = self.first();
        ram.let_guest_write();
        let control = ram.control_page();
        let news = News {
            reason: reason as u32,
            resume_count: control
                .resume_count
                .load(SeqCst)
                .wrapping_add((reason != ResumeReason::Boot).into()),
            away_ns: away.as_nanos() as u64,
            generation: fresh
                .and_then(|fresh| fresh.generation)
                .unwrap_or_else(|| words(&control.generation)),
            entropy: fresh.map_or_else(|| words(&control.entropy), |fresh| fresh.entropy),
            clock: devices.clock.published(),
            net_mmio: devices.bus.window_of::<Net>().unwrap_or(0),
            memory_size: ram.size(),
        };
        runner.tell(news, &ram);
        self.parts().1.for_each(Runner::before_resume);
    }
}

/// Their values.
fn words<const N: usize>(atomics: &[AtomicU64; N]) -> [u64; N] {
    std::array::from_fn(|n| atomics[n].load(SeqCst))
}

/// Random numbers for a guest whose memory may have been copied.
#[derive(Debug)]
struct Fresh {
    /// Random numbers for a guest that is such a copy.
    generation: Option<[u64; 2]>,
    entropy: [u64; 8],
}

impl Fresh {
    fn draw(new_generation: bool) -> Result<Self, Error> {
        let failed = |source| Error::Host { doing: "draw random numbers", source };
        let bytes: [u8; 80] = random::bytes().map_err(failed)?;
        let mut words = bytes.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
        let mut next = || words.next().expect("ten words");
        Ok(Self {
            generation: new_generation.then(|| std::array::from_fn(|_| next())),
            entropy: std::array::from_fn(|_| next()),
        })
    }
}
