//! Limits on what a source may send. A trusted source may still be hostile: its messages cost the
//! destination work, and keep the one receiving process busy.

use std::hash::{Hash, Hasher};

use crate::precopy::ROUNDS_MAX;

/// How often each page may be named in a round: with its content, as zero, or as a post-copy page.
/// A correct source names it once; a few bytes can cause as much work here as the memory is large.
pub(super) const NAMED_MOST: u64 = 2;

/// What a source sends too much of.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Excess {
    /// Pages.
    #[error("the source named more pages in a round than there are")]
    Pages,
    /// Rounds.
    #[error("the source made more than {ROUNDS_MAX} rounds")]
    Rounds,
}

/// What the source has sent before the commit.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Said {
    /// Rounds that have ended.
    rounds: u32,
    /// Pages named in the current round; a message that names none counts as one.
    pages: u64,
    /// The source has sent the switch-over hint, which it sends once.
    rounds_since_hint: bool,
    /// The source has announced the stop, which it does once.
    stopping: bool,
}

impl Said {
    /// Counts these pages, of a VM that has `all`.
    pub(super) fn named(&mut self, runs: &[(u64, u64)], all: usize) -> Result<(), Excess> {
        let count = runs.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
        self.pages = self.pages.saturating_add(count.max(1));
        if self.pages <= NAMED_MOST * all as u64 {
            return Ok(());
        }
        Err(Excess::Pages)
    }

    /// Counts the end of a round.
    pub(super) fn round(&mut self) -> Result<(), Excess> {
        (self.rounds, self.pages) = (self.rounds + 1, 0);
        if self.rounds <= ROUNDS_MAX {
            return Ok(());
        }
        Err(Excess::Rounds)
    }

    /// Records the switch-over hint; `false` if it was sent before.
    pub(super) fn switch_hint(&mut self) -> bool {
        !std::mem::replace(&mut self.rounds_since_hint, true)
    }

    /// Records the announcement of the stop; `false` if it was sent before.
    pub(super) fn stopping(&mut self) -> bool {
        !std::mem::replace(&mut self.stopping, true)
    }
}

/// Leaves out the counts and whether the stop was announced. A model checker thus treats states
/// that differ only in these as one: they affect a move only where the destination cancels it,
/// which it may do at any time.
impl Hash for Said {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rounds_since_hint.hash(state);
    }
}
