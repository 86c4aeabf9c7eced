//! Why an arbiter gave no answer.

use serde::{Deserialize, Serialize};

/// Why a request has no answer. The variants differ in what the caller may conclude.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Error {
    /// The arbiter did not answer in time. Nothing was changed, and nothing will be by this
    /// request.
    #[error("the arbiter cannot be reached: {0}")]
    Unreachable(String),
    /// The change may have happened, or may still happen: repeat the same
    /// [`Swap`](crate::Swap) until the answer is certain.
    #[error("it is not known whether the arbiter made the change: {0}")]
    Unknown(String),
    /// The arbiter does not accept this request, now or later, until its configuration changes.
    #[error("the arbiter refuses: {0}")]
    Refused(String),
    /// What the arbiter has stored is not a record of this set.
    #[error("the arbiter's record is damaged: {0}")]
    Damaged(String),
    /// Too many requests wait for their answers; this one was not sent.
    #[error("{0} requests wait for the arbiter already; take their answers first")]
    Busy(usize),
    /// The process that talks to the arbiter has ended. A change that it was asked for may have
    /// happened.
    #[error("the process that talks to the arbiter has ended: {0}")]
    Ended(String),
}

impl Error {
    /// Whether the change that was asked for may have happened, or may still happen.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unknown(_) | Self::Ended(_))
    }

    /// The same error with a text of at most 300 characters, which a message can carry.
    #[must_use]
    pub(crate) fn shortened(mut self) -> Self {
        const LONGEST: usize = 300;
        if let Self::Unreachable(text)
        | Self::Unknown(text)
        | Self::Refused(text)
        | Self::Damaged(text)
        | Self::Ended(text) = &mut self
            && let Some((end, _)) = text.char_indices().nth(LONGEST)
        {
            text.truncate(end);
            text.push('…');
        }
        self
    }
}

/// An error's text, followed by its causes that do not repeat it.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let Error::Refused(text) = Error::Refused("ä".repeat(400)).shortened() else {
            panic!("another error")
        };
        assert_eq!(text.chars().count(), 301);
    }
}
