//! Hooks around pauses of a VM: before it is moved, copied or paused, and after it runs again.
//!
//! ```
//! vmm_lite_hooks::on_quiesce(|quiesce| {
//!     // Finish what is best not in flight, within `quiesce.time_left()`.
//! });
//! vmm_lite_hooks::on_resume(|resume| {
//!     println!("{:?} after {:?}", resume.reason, resume.away);
//!     // After `Restored` or `Forked` there are other copies of this program: draw new keys, take
//!     // a new name. After `Reverted` what it drew since is forgotten: draw again too.
//! });
//! ```
//! Hooks run on a thread of their own, one at a time, while all other threads of the program run
//! too; so they may lock what these lock. A hook that runs past the deadline does not delay the
//! move: the VM is stopped in the midst of it, and it goes on after the resume.
//!
//! A program that runs natively, or under another kernel for the same target than vmm-lite's, can
//! use this crate too: natively no hook is ever called.

use std::time::{Duration, Instant};

#[cfg(target_os = "hermit")]
mod guest;
#[cfg(not(target_os = "hermit"))]
mod native;

#[cfg(target_os = "hermit")]
use guest as imp;
#[cfg(not(target_os = "hermit"))]
use native as imp;

/// The VM is about to be paused.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Quiesce {
    /// When it will be, whether or not the hooks have returned.
    pub deadline: Instant,
}

impl Quiesce {
    /// How long until the deadline.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// The VM runs again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Resume {
    /// What happened to it.
    pub reason: Reason,
    /// How long it was paused. [`Instant`] went on meanwhile.
    pub away: Duration,
    /// Changes when a copy of the VM starts and when the VM is reverted, so that what was
    /// drawn before can be recognized as old.
    pub generation: u128,
}

/// Why a VM runs again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Reason {
    /// A pause ended, or a move failed or was cancelled.
    Resumed,
    /// It moved to another host.
    Migrated,
    /// It is a copy, started from a snapshot.
    Restored,
    /// It is a copy of a VM that runs on.
    Forked,
    /// It is the standby of a VM that died.
    TakenOver,
    /// It was reverted, in place, to a snapshot.
    Reverted,
    /// Something that this version of the crate does not know, by its number.
    Other(u32),
}

impl From<u32> for Reason {
    /// The reason with this number in the control page.
    fn from(number: u32) -> Self {
        match number {
            1 => Self::Resumed,
            2 => Self::Migrated,
            3 => Self::Restored,
            4 => Self::Forked,
            5 => Self::TakenOver,
            6 => Self::Reverted,
            other => Self::Other(other),
        }
    }
}

/// Has `hook` called before each pause. Of several hooks the latest is called first.
///
/// # Panics
/// Without memory for it.
pub fn on_quiesce(hook: impl FnMut(&Quiesce) + Send + 'static) {
    imp::on_quiesce(Box::new(hook));
}

/// Has `hook` called after each resume. Of several hooks the earliest is called first.
///
/// # Panics
/// Without memory for it.
pub fn on_resume(hook: impl FnMut(&Resume) + Send + 'static) {
    imp::on_resume(Box::new(hook));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn natively_nothing_is_called() {
        on_quiesce(|_| panic!("called"));
        on_resume(|_| panic!("called"));
    }

    #[test]
    fn reasons_have_the_numbers_of_the_interface() {
        use vmm_lite_interface::control::ResumeReason;
        for (reason, number) in [
            (Reason::Resumed, ResumeReason::Resumed),
            (Reason::Migrated, ResumeReason::Migrated),
            (Reason::Restored, ResumeReason::Restored),
            (Reason::Forked, ResumeReason::Forked),
            (Reason::TakenOver, ResumeReason::TakenOver),
            (Reason::Reverted, ResumeReason::Reverted),
        ] {
            assert_eq!(Reason::from(number as u32), reason);
        }
        assert_eq!(Reason::from(77), Reason::Other(77));
    }

    #[test]
    fn time_left_does_not_go_below_nothing() {
        let late = Quiesce { deadline: Instant::now() };
        assert_eq!(late.time_left(), Duration::ZERO);
        let early = Quiesce { deadline: Instant::now() + Duration::from_secs(60) };
        assert!(early.time_left() > Duration::from_secs(30));
    }
}
