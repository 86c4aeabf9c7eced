//! What a move cost, by phase (rule R7).

use std::time::Duration;

use crate::wire::Started;

/// The phases of the blackout, in order, in ns. They add up to the blackout.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Phases {
    /// From the request to pause until the vCPU was stopped.
    pub quiesce_ns: u64,
    /// Until the last pages and the state were handed to the network.
    pub last_pages_and_state_ns: u64,
    /// Until `Ready` arrived: the transfer, and the destination's applying, which is
    /// [`Report::apply_ns`]. Where the commit was sent together with the state: the time until
    /// `Running` arrived less the next phase; then it includes the way back.
    pub transfer_and_apply_ns: u64,
    /// From then until the destination was right before the guest's first instruction: the commit,
    /// its transfer, the start. The source measures it until `Running` arrived, less the time the
    /// destination took to send that; so it includes the way back and errs upwards. Where the
    /// commit was sent together with the state, it is the destination's own time since it applied
    /// the state.
    pub commit_and_run_ns: u64,
}

/// A successful move. A value that only the destination knows is `None` if the connection broke
/// before the source received it; the counts that belong to [`brownout_ns`](Self::brownout_ns) are
/// then zero.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// From the request to pause to the first instruction at the destination. See
    /// [`Phases::commit_and_run_ns`] for the direction of its error. `None` if the destination's
    /// `Running` was lost, and the source knows that the VM runs only from a later answer to its
    /// query.
    pub blackout_ns: Option<u64>,
    /// The prediction when the guest was stopped.
    pub predicted_blackout_ns: u64,
    /// From the beginning of the move until the destination had reported that it runs the VM and
    /// has all its memory.
    pub total_ns: u64,
    /// Bytes sent on the connection.
    pub bytes_sent: u64,
    /// Rounds while the guest ran.
    pub rounds: u32,
    /// Pages sent with their content.
    pub pages_sent: u64,
    /// Pages sent in the blackout.
    pub last_pages: u64,
    /// Pages sent as zero.
    pub pages_zero: u64,
    /// Pages left out because of the guest's page hints, including those never written to.
    pub pages_dont_care: u64,
    /// Of these, those with content that would have been sent, in bytes, without zero pages and
    /// untouched ones. `None` if the host could not tell.
    pub bytes_left_out: Option<u64>,
    /// Post-copy pages, sent after the commit.
    pub pages_following: u64,
    /// From the first instruction at the destination until nothing was missing there: so long the
    /// VM depended on both hosts. It is measured from the commit if the source does not know when
    /// the destination ran the VM, and until the answer to a query if the report that nothing is
    /// missing was lost: then it errs upwards.
    pub following_ns: u64,
    /// Of the post-copy pages, those that the guest had to wait for, as the destination counts.
    /// `None`, as are the next two, if that report was lost, and the source knows only from the
    /// answer to a query that nothing is missing.
    pub pages_waited_for: Option<u64>,
    /// How long it waited for them in all, ns.
    pub waited_ns: Option<u64>,
    /// The longest of these waits, ns.
    pub worst_wait_ns: Option<u64>,
    /// Whether the guest quiesced in time, or was stopped where it was.
    pub quiescent: bool,
    /// The blackout by phase, where it was measured.
    pub phases: Option<Phases>,
    /// The destination's part of the third phase, by its own clock, ns.
    pub apply_ns: Option<u64>,
    /// The destination's part of the fourth phase, by its own clock, ns.
    pub run_ns: Option<u64>,
    /// The brownout: from the first instruction at the destination until the guest was back at nine
    /// tenths of its speed, as far as [`brownout`](crate::brownout) can tell, by the destination's
    /// clock, ns. `None` if it could not tell, or its report was lost.
    pub brownout_ns: Option<u64>,
    /// Whether it was over then, or the destination stopped watching.
    pub brownout_over: bool,
    /// How often KVM's second tables lacked a page at the destination during it.
    pub brownout_page_faults: u64,
    /// What the guest lost to those faults and to waits for post-copy pages, ns.
    pub brownout_lost_ns: u64,
}

/// Moments of the switch at the source, in order.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Moments {
    /// The source requested the pause.
    pub requested: Duration,
    /// The vCPU was stopped.
    pub stopped: Duration,
    /// Last pages and state were handed to the network.
    pub sent: Duration,
    /// `Ready` arrived, if it was waited for.
    pub ready: Option<Duration>,
    /// The commit was issued.
    pub committed: Duration,
    /// `Running` arrived, if it did.
    pub running: Option<Duration>,
}

impl Moments {
    /// The phases between them. `None` if the source does not know when the VM ran there, or if the
    /// moments are out of order and so mean nothing.
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
