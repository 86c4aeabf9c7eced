//! What a verb reports before its answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The value of `progress`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Progress {
    /// An event of a move, or a wait for missing memory.
    Event(Event),
    /// Of a snapshot or a fork.
    Pages(Pages),
    /// The verb takes longer than half a second.
    WaitingFor {
        /// What keeps it, in words.
        waiting_for: String,
    },
    /// From a newer VM.
    #[cfg_attr(test, schemars(skip))]
    Other(Value),
}

/// How far a copy is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Pages {
    /// Pages that are done.
    pub pages: u64,
    /// Pages of the VM.
    pub of: u64,
}

/// An event. Variants are only ever added.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A new phase of a move has begun.
    Phase {
        /// Which, in words.
        doing: String,
        /// Since the move began, in ns.
        at_ns: u64,
    },
    /// A round is done, and the changes of the guest meanwhile are known.
    Round(Round),
    /// The operation has not begun: it waits for missing memory of the VM. Repeated.
    Waiting {
        /// What for, in words.
        doing: String,
        /// Since the verb began, in ns.
        at_ns: u64,
        /// How much is missing, in bytes.
        bytes_missing: u64,
    },
    /// The move failed. Only `vmm-lite migrate --json` prints it, in place of a report.
    Failed {
        /// Why, for people.
        error: String,
    },
}

/// A pass over memory while the guest runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Round {
    /// Its number, from 1.
    pub round: u32,
    /// Since the move began, in ns.
    pub at_ns: u64,
    /// How long it took, until the destination had confirmed it, in ns.
    pub took_ns: u64,
    /// Pages sent with their content.
    pub pages: u64,
    /// Pages announced as zero.
    pub pages_zero: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Bytes on the wire per second.
    pub bytes_per_second: u64,
    /// Pages that changed meanwhile.
    pub dirty_pages: u64,
    /// Bytes changed per second.
    pub dirty_bytes_per_second: u64,
    /// Bytes sent so far in all rounds.
    pub bytes_sent: u64,
    /// The expected blackout if the guest were stopped now, in ns.
    pub predicted_blackout_ns: u64,
}
