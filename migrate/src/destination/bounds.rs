//! How much a source may say. It is trusted, and may be hostile all the same: what it says costs
//! this side as much work, and keeps the one process busy that receives.

use std::hash::{Hash, Hasher};

use crate::rounds::ROUNDS_MAX;

/// How often each page may be named in a round: with its content, as zero, or as one that follows.
/// A source names it once; a few bytes can be as much work here as the memory is large.
pub(super) const NAMED_MOST: u64 = 2;

/// What was said before the commit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    /// Rounds that have ended.
    rounds: u32,
    /// Pages named in the one under way; a message that names none counts as one.
    pages: u64,
    /// The switch is near, which is said once.
    rounds_since_hint: bool,
    /// The guest is about to be stopped, which is said once.
    stopping: bool,
}

impl Said {
    /// These pages of a VM that has `all`.
    pub(super) fn named(&mut self, runs: &[(u64, u64)], all: usize) -> Result<(), String> {
        let count = runs.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        self.pages = self.pages.saturating_add(count.max(1));
        if self.pages <= NAMED_MOST * all as u64 {
            return Ok(());
        }
        Err("the source named more pages in a round than there are".into())
    }

    /// The end of a round.
    pub(super) fn round(&mut self) -> Result<(), String> {
        (self.rounds, self.pages) = (self.rounds + 1, 0);
        if self.rounds <= ROUNDS_MAX {
            return Ok(());
        }
        Err(format!("the source made more than {ROUNDS_MAX} rounds"))
    }

    /// That the switch is near; `false` if it was said before.
    pub(super) fn switch_hint(&mut self) -> bool {
        !std::mem::replace(&mut self.rounds_since_hint, true)
    }

    /// That the guest is about to be stopped; `false` if it was said before.
    pub(super) fn stopping(&mut self) -> bool {
        !std::mem::replace(&mut self.stopping, true)
    }
}

/// Without the counts, and whether the stop was said. A model checker takes states that differ in
/// these alone for one: how a move goes on depends on them only where the destination gives up,
/// which it may do at any time.
impl Hash for Said {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rounds_since_hint.hash(state);
    }
}
