//! Carries out the actions of the destination's state machine.

use super::{
    super::{
        error::Error,
        prepared::Prepared,
        preparing::while_telling,
        waiting::{Waiting, say_whole},
    },
    AWAKE, AWAKE_MOST, Attempt,
};
use crate::{host::with_causes, migration::connection::Connection};
use migrate::{
    destination::{Action, Event},
    offer::{Offer, Refusal},
    wire::Message,
};
use std::time::Instant;

impl Attempt<'_> {
    pub(super) fn act(&mut self, action: Action) {
        match action {
            Action::Send(mut message) => {
                let Some(connection) = &mut self.connection else { return };
                self.spoke = Instant::now();
                if let Message::Running(started) = &mut message {
                    started.told_ns = (self.spoke - self.ran).as_nanos() as u64;
                }
                if let Err(e) = connection.send(&message) {
                    return self.lost(&e);
                }
                if message == Message::Ready {
                    fail_point!("destination.ready");
                }
                if let Message::RoundDone(_) = message {
                    // There may be another urgent round.
                    self.awake_until = (self.spoke + AWAKE).min(self.awake_most);
                }
                if let Some(prepared) = &mut self.prepared {
                    prepared.said(&message);
                }
            }
            Action::Prepare(offer) => self.prepare(&offer),
            Action::Forget(runs) => {
                let missing = self.prepared.as_mut().and_then(|p| p.missing.as_mut());
                let forgot = match missing {
                    Some(missing) => missing.forget(&runs),
                    None => Err(Error::NoPostCopy),
                };
                self.events.push_back(Event::Forgot(forgot.map_err(|e| with_causes(&e))));
            }
            Action::SwitchHint(invariant) => {
                if let Some(prepared) = &mut self.prepared {
                    prepared.switch_hint(&invariant);
                }
                let now = Instant::now();
                // Only once: a source gains nothing by repeating this message.
                if self.awake_most == self.epoch {
                    (self.awake_until, self.awake_most) = (now + AWAKE, now + AWAKE_MOST);
                }
            }
            Action::Prewake => {
                if let Some(prepared) = &self.prepared {
                    prepared.vm.prewake();
                }
            }
            Action::Apply(state) => {
                self.before_switch = self.spoke;
                let lacking = self.machine.lacking();
                let applied = match &mut self.prepared {
                    Some(prepared) => prepared.apply(&state, self.came, lacking),
                    None => Err(Error::NotPrepared),
                };
                self.events.push_back(Event::Applied(applied.map_err(|e| with_causes(&e))));
            }
            Action::Run => self.start(),
            Action::Deliver(frame) => {
                if let Some(prepared) = &self.prepared
                    && !prepared.vm.deliver_forwarded(frame)
                {
                    tracing::debug!("a forwarded packet was dropped: no room");
                }
            }
            Action::Supply(page) => {
                if let Some(missing) = self.prepared.as_ref().and_then(|p| p.missing.as_ref())
                    && let Err(e) = missing.zero(page, 1)
                {
                    tracing::error!("{}", with_causes(&e));
                }
            }
            Action::Complete => {
                self.rejoin.set_lacking(false);
                if let Some(prepared) = &mut self.prepared {
                    prepared.nothing_is_missing();
                }
                say_whole(self.ran.elapsed(), &self.machine.arrival());
                fail_point!("destination.whole");
            }
            Action::AwaitSource(why) => {
                let why = why.to_string();
                self.connection = None;
                // Other threads hold the stream too, and the source must learn that it has to
                // reconnect.
                self.rejoin.shut_down();
                if let Some(prepared) = &self.prepared {
                    prepared.source_is_away(Some(&why));
                }
                let limit = self.receiver.lost_after;
                self.waiting = Some(Waiting::begin(&why, self.machine.lacking(), limit));
            }
            Action::Lost(pages) => {
                self.rejoin.set_lacking(false);
                if let Some(prepared) = &mut self.prepared {
                    prepared.lost(&pages);
                }
            }
            Action::Discard(why) => self.discarded = Some(why),
            Action::End => self.rejoin.set_lacking(false),
        }
    }

    /// Makes a VM for an offer.
    fn prepare(&mut self, offer: &Offer) {
        let offering = self.receiver.offering().clone();
        let source = self.connection.as_ref().map_or_else(String::new, Connection::other_end);
        let prepare = || {
            let offering = offering.ok_or(Refusal::Busy)?;
            Prepared::new(offer, &offering, source)
        };
        let (made, told) = match while_telling(self.connection.as_mut(), prepare) {
            Ok(done) => done,
            Err(e) => (Err(Refusal::Prepare(format!("cannot start a thread: {e}"))), Ok(())),
        };
        self.events.push_back(Event::Prepared(made.map(|(prepared, accepted)| {
            self.pages = prepared.vm.ram().pages();
            self.prepared = Some(prepared);
            accepted
        })));
        if let Err(e) = told {
            self.lost(&e);
        }
    }

    /// The commit has arrived: the VM runs here, and this process belongs to it.
    fn start(&mut self) {
        let (Some(id), Some(prepared)) = (self.machine.id(), &mut self.prepared) else { return };
        fail_point!("destination.commit-came");
        let lacks = !self.machine.lacking().is_empty();
        if !lacks {
            prepared.nothing_is_missing();
        }
        {
            let mut state = self.receiver.state();
            self.rejoin.set_lacking(lacks);
            state.ledger.ran(id);
            state.taken = true;
        }
        self.receiver.changed.notify_all();
        fail_point!("destination.written-down");
        let started;
        (started, self.ran) = prepared.start(self.came, self.before_switch);
        // A VM runs here: resources for another are closed.
        drop(self.receiver.offering().take());
        prepared.name.open();
        // The receiving thread exists as long as the process, so this does not fail.
        let _ = self.receiver.arrived.send(prepared.vm.clone());
        fail_point!("destination.announced");
        self.events.push_back(Event::Runs(started));
        self.settles = true;
    }
}
