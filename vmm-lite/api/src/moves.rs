//! The report of `migrate`.

use serde::{Deserialize, Serialize};

/// The answer to `migrate`: the VM runs at the destination.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MoveReport {
    /// What the move cost. `None`: the connection was lost at the commit, and the source learned
    /// only by asking that the move succeeded.
    #[serde(flatten)]
    pub cost: Option<MoveCost>,
    /// Where it is now.
    pub to: String,
    /// Whether the VM is paused there, as it was here.
    pub paused: bool,
    /// The key of the host that took the VM; `None` in plaintext.
    pub destination_key: Option<String>,
}

/// What a move cost. A value that only the destination knows is `None` if the connection broke
/// before the source received it; the counts that belong to `brownout_ns` are then zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MoveCost {
    /// From the request to pause to the first instruction at the destination, in ns.
    pub blackout_ns: Option<u64>,
    /// What was predicted when the guest was stopped, in ns.
    pub predicted_blackout_ns: u64,
    /// From the beginning until it ran there with all its memory, in ns.
    pub total_ns: u64,
    /// Bytes sent on the connection.
    pub bytes_sent: u64,
    /// Rounds while the guest ran.
    pub rounds: u32,
    /// Pages sent with their content.
    pub pages_sent: u64,
    /// Of these, pages sent in the blackout.
    pub last_pages: u64,
    /// Pages sent as zero.
    pub pages_zero: u64,
    /// Pages left out as hinted, untouched ones included.
    pub pages_dont_care: u64,
    /// Of these, those with content that would have been sent, in bytes.
    pub bytes_left_out: Option<u64>,
    /// Post-copy pages.
    pub pages_following: u64,
    /// For how long the VM needed both hosts, in ns.
    pub following_ns: u64,
    /// Post-copy pages that the guest waited for.
    pub pages_waited_for: Option<u64>,
    /// How long it waited for them in all, in ns.
    pub waited_ns: Option<u64>,
    /// The longest of these waits, in ns.
    pub worst_wait_ns: Option<u64>,
    /// Whether the guest quiesced in time, or was stopped where it was.
    pub quiescent: bool,
    /// The blackout by phase.
    pub phases: Option<MovePhases>,
    /// The destination's part of the third phase, by its own clock, in ns.
    pub apply_ns: Option<u64>,
    /// The destination's part of the fourth phase, by its own clock, in ns.
    pub run_ns: Option<u64>,
    /// Until the guest was back at nine tenths of its speed, in ns.
    pub brownout_ns: Option<u64>,
    /// Whether the brownout was over then, or just not watched any longer.
    pub brownout_over: bool,
    /// Page faults counted meanwhile.
    pub brownout_page_faults: u64,
    /// The time that the guest lost, in ns.
    pub brownout_lost_ns: u64,
    /// In mode lockstep: the guest's pause for the copy, some time before the blackout, in ns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy_pause_ns: Option<u64>,
}

/// The phases of a move's blackout, in order, in ns. They add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MovePhases {
    /// From the request to pause until the vCPU was stopped.
    pub quiesce_ns: u64,
    /// Until the last pages and the state were handed to the network.
    pub last_pages_and_state_ns: u64,
    /// Until the destination had applied them.
    pub transfer_and_apply_ns: u64,
    /// Until the destination was right before the guest's first instruction.
    pub commit_and_run_ns: u64,
}
