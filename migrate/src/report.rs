//! What a move cost, by phase (rule R7).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire::Started;

/// The phases of the blackout, in their order, in ns. They add up to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Phases {
    /// From the request to pause until the vCPU stood.
    pub quiesce_ns: u64,
    /// Until the last pages and the state were handed to the network.
    pub last_pages_and_state_ns: u64,
    /// Until `Ready` arrived: transfer, and the destination's applying, which [`Report::apply_ns`]
    /// is a part of. Where the commit went together with the state, what is left of the time until
    /// `Running` arrived when the next phase is taken out; it holds the way back then.
    pub transfer_and_apply_ns: u64,
    /// From then until the destination was right before the guest's first instruction: commit, its
    /// way, run. Measured at the source until `Running` arrived, less what the destination took to
    /// say so; so it holds the way back too, and errs upwards. Where the commit went together with
    /// the state, the destination's own time from having applied it.
    pub commit_and_run_ns: u64,
}

/// A move that was made. What only the destination could tell, and the source did not hear as the
/// connection broke, is `None`; the counts that go with [`brownout_ns`](Self::brownout_ns) are zero
/// then.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// From the request to pause to the first instruction at the destination. See
    /// [`Phases::commit_and_run_ns`] for which way it errs. `None` if the destination's word that
    /// it runs the VM was lost, and it is known only by its answer to a question later on.
    pub blackout_ns: Option<u64>,
    /// What it was expected to be when the guest was stopped.
    pub predicted_blackout_ns: u64,
    /// From the beginning of the move until the destination had said that it runs the VM and has
    /// all its memory.
    pub total_ns: u64,
    /// Bytes sent on the connection.
    pub bytes_sent: u64,
    /// Rounds while the guest ran.
    pub rounds: u32,
    /// Pages sent with their content.
    pub pages_sent: u64,
    /// Pages sent in the blackout.
    pub last_pages: u64,
    /// Pages told to be zero.
    pub pages_zero: u64,
    /// Pages left out because the guest does not care for them, those that nobody ever wrote to
    /// included.
    pub pages_dont_care: u64,
    /// Of these, those that hold something and would have been sent, in bytes: zero pages and
    /// untouched ones are not in it. `None` if the host could not tell.
    pub bytes_left_out: Option<u64>,
    /// Pages that followed after the commit.
    pub pages_following: u64,
    /// From the first instruction at the destination until nothing was missing there: for so long
    /// the VM depended on both hosts. From the commit where it is not known when the destination
    /// ran the VM, and until the answer to a question where the destination's word was lost that
    /// nothing was missing: then it errs upwards.
    pub following_ns: u64,
    /// Of these pages, those that the guest had to wait for, by the destination's account. `None`,
    /// as are the next two, if that was lost, and it is known only by the answer to a question that
    /// nothing is missing.
    pub pages_waited_for: Option<u64>,
    /// How long it waited for them in all, ns.
    pub waited_ns: Option<u64>,
    /// The longest of these waits, ns.
    pub worst_wait_ns: Option<u64>,
    /// Whether the guest answered in time, or was stopped where it was.
    pub quiescent: bool,
    /// The blackout, by phase, where it is known.
    pub phases: Option<Phases>,
    /// The destination's part of the third phase, by its own clock, ns.
    pub apply_ns: Option<u64>,
    /// The destination's part of the fourth phase, by its own clock, ns.
    pub run_ns: Option<u64>,
    /// The brownout: from the first instruction at the destination until the guest was back at nine
    /// tenths of its speed, as far as [`brownout`](crate::brownout) can tell, by the destination's
    /// clock, ns. `None` if it could not, or its word was lost.
    pub brownout_ns: Option<u64>,
    /// Whether it was over then, or just not watched any longer.
    pub brownout_over: bool,
    /// How often KVM's second tables lacked a page meanwhile at the destination.
    pub brownout_page_faults: u64,
    /// What the guest lost by them and by waiting for pages that followed, ns.
    pub brownout_lost_ns: u64,
}

/// Moments of the switch at the source, in their order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Moments {
    /// The pause was asked for.
    pub requested: Duration,
    /// The vCPU stood.
    pub stopped: Duration,
    /// Last pages and state were handed to the network.
    pub sent: Duration,
    /// `Ready` arrived, if it was waited for.
    pub ready: Option<Duration>,
    /// The commit was given out.
    pub committed: Duration,
    /// `Running` arrived, if it did.
    pub running: Option<Duration>,
}

impl Moments {
    /// The phases between them. `None` if it is not known when the VM ran there, or they are out of
    /// order: then nothing can be said.
    #[must_use]
    pub fn phases(&self, started: &Started) -> Option<Phases> {
        let ns = |from: Duration, to: Duration| to.checked_sub(from).map(|d| d.as_nanos() as u64);
        let running = self.running?;
        let (transfer_and_apply_ns, commit_and_run_ns) = match self.ready {
            Some(ready) => {
                (ns(self.sent, ready)?, ns(ready, running)?.saturating_sub(started.told_ns))
            }
            None => {
                let both = ns(self.sent, running)?.saturating_sub(started.told_ns);
                let run = started.run_ns.min(both);
                (both - run, run)
            }
        };
        Some(Phases {
            quiesce_ns: ns(self.requested, self.stopped)?,
            last_pages_and_state_ns: ns(self.stopped, self.sent)?,
            transfer_and_apply_ns,
            commit_and_run_ns,
        })
    }
}

impl Phases {
    /// Their sum.
    #[must_use]
    pub fn blackout_ns(&self) -> u64 {
        self.quiesce_ns
            + self.last_pages_and_state_ns
            + self.transfer_and_apply_ns
            + self.commit_and_run_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_add_up_and_refuse_disorder() {
        let us = Duration::from_micros;
        let m = Moments {
            requested: us(10),
            stopped: us(60),
            sent: us(100),
            ready: Some(us(180)),
            committed: us(180),
            running: Some(us(300)),
        };
        let started = Started { told_ns: 20_000, run_ns: 60_000, ..Started::default() };
        let p = m.phases(&started).unwrap();
        assert_eq!(p.blackout_ns(), 270_000);
        assert_eq!((p.quiesce_ns, p.commit_and_run_ns), (50_000, 100_000));
        let together = Moments { ready: None, ..m }.phases(&started).unwrap();
        assert_eq!(together.blackout_ns(), 270_000);
        assert_eq!((together.transfer_and_apply_ns, together.commit_and_run_ns), (120_000, 60_000));
        let wrong = Moments { ready: Some(us(90)), ..m };
        assert_eq!(wrong.phases(&started), None);
        assert_eq!(Moments { running: None, ..m }.phases(&started), None);
    }
}
