//! The operation on the VM that is under way when a verb arrives.

/// The operation on the VM that is under way when the verb arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Booting,
    Running,
    Paused,
    Quiescing,
    Moving,
    Switching,
    HandedOver,
    Loading,
    Saving,
    Forking,
    Reverting,
    Restoring,
    Ended,
}

impl State {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Quiescing => "quiescing",
            Self::Moving => "moving",
            Self::Switching => "switching",
            Self::HandedOver => "handed over",
            Self::Loading => "loading",
            Self::Saving => "saving",
            Self::Forking => "forking",
            Self::Reverting => "reverting",
            Self::Restoring => "restoring",
            Self::Ended => "ended",
        }
    }

    /// The fail point at which a thread of the VM's process is held meanwhile.
    pub(super) fn held_at(self) -> Option<&'static str> {
        Some(match self {
            Self::Booting => "run.booting",
            Self::Quiescing => "vm.quiescing",
            Self::Moving => "source.in-round",
            Self::Switching => "source.last-half-sent",
            Self::Loading => "lazy.loading",
            Self::Saving | Self::Forking => "copy.begun",
            Self::Reverting => "revert.half-exchanged",
            Self::Restoring => "restore.loading",
            Self::Running | Self::Paused | Self::HandedOver | Self::Ended => return None,
        })
    }

    /// The operation, in words.
    pub(super) fn doing(self) -> Option<&'static str> {
        Some(match self {
            Self::Moving | Self::Switching | Self::HandedOver => "being moved",
            Self::Saving => "being saved to a snapshot",
            Self::Forking => "being copied for clones",
            Self::Reverting => "being put back to a snapshot",
            _ => return None,
        })
    }

    /// Whether the verb may take effect before or after the held thread continues, and may wait for
    /// it.
    pub(super) fn lets_go_at_once(self, verb: &str) -> bool {
        match self {
            // Verbs that need all of its memory wait for the held thread, and so may the guest.
            Self::Booting | Self::Restoring | Self::Loading => true,
            // Verbs that end the VM here wait for the held request.
            Self::Quiescing => matches!(verb, "migrate" | "stop" | "SIGTERM"),
            _ => false,
        }
    }
}
