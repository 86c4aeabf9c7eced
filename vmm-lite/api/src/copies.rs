//! The reports of `snapshot`, `fork` and `revert`.

use serde::{Deserialize, Serialize};

/// The answer to `fork`, and a part of that to `snapshot`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct ForkReport {
    /// How it was copied.
    pub mode: CopiedMode,
    /// Whether the guest was ready.
    pub quiescent: bool,
    /// How long no instruction of the guest ran, from the request to pause, in ns; `None` for a VM
    /// that was paused all the time.
    pub pause_ns: Option<u64>,
    /// The pause by phase.
    pub phases: Option<PausePhases>,
    /// All of it, in ns.
    pub total_ns: u64,
    /// How often a write waited for its page to be copied first.
    pub faults: u64,
    /// Pages left out as hinted.
    pub pages_dont_care: u64,
    /// Pages saved with their content.
    pub pages_saved: u64,
}

/// How a VM was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CopiedMode {
    /// In rounds while it ran, and the last pages while it was stopped.
    Rounds,
    /// Pages were copied before the guest wrote to them.
    CopyOnWrite,
    /// It was paused all the time.
    Paused,
    /// In a way that only a newer VM knows.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The phases of a pause, in order, in ns. They add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct PausePhases {
    /// From the request to pause until the vCPU was stopped.
    pub quiesce_ns: u64,
    /// Until no memory could change any more without being noticed.
    pub memory_ns: u64,
    /// Until the state was captured.
    pub state_ns: u64,
    /// Until the guest's next instruction.
    pub resume_ns: u64,
}

/// The answer to `snapshot`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct SnapshotReport {
    /// The copy and its costs.
    #[serde(flatten)]
    pub copy: ForkReport,
    /// Whether the VM ran before.
    pub ran: bool,
    /// The snapshot's id, in hexadecimal.
    pub id: String,
    /// Whether it is a difference to another file.
    pub difference: bool,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// Pages that are zero.
    pub pages_zero: u64,
    /// Pages that are as in the base.
    pub pages_same: u64,
    /// Whether the VM is paused now.
    pub paused: bool,
}

/// The answer to `revert`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct RevertReport {
    /// How long no instruction of the guest ran, from the request to pause, in ns.
    pub pause_ns: u64,
    /// All of it, in ns.
    pub total_ns: u64,
    /// Pages that were exchanged.
    pub pages: u64,
}
