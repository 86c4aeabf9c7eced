//! Carries out the actions of the source's state machine.

use super::{
    super::{STALLED, forwarder::Forwarder, left_out::held_by},
    Driver,
};
use crate::{
    capture::{
        self,
        changes::{Changes, Looked},
    },
    host::{
        poll::{Watch, wait_any, wait_readable},
        urgent::{Side, Urgent},
    },
    memory::Tables,
    migration::{
        Error,
        connection::Connection,
        progress::{MoveObserver, Moved},
        switch_hint::SwitchHint,
    },
    vm::CallOff,
};
use migrate::{
    page_set::PageSet,
    source::{Action, Ended, Event, Stopped},
    wire::Message,
};
use std::time::{Duration, Instant};

/// How long to wait before asking again a destination that has not answered after the commit.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Driver<'_> {
    pub(super) fn act(&mut self, action: Action, observer: &mut dyn MoveObserver) {
        match action {
            Action::Send(message) => {
                self.send(&message);
                if let Message::Offer(_) = message {
                    fail_point!("source.offered");
                }
            }
            Action::StartLog => {
                match Changes::start(self.vm, self.complete) {
                    Ok(changes) => self.changes = Some(changes),
                    Err(e) => return self.failed(&e),
                }
                fail_point!("source.logging", else self.failed(&crate::fail_point::injected()));
            }
            Action::SendPages { round, pages } => {
                self.tell(observer);
                self.send_round(round, &pages, observer);
            }
            Action::Announce { round, pages } => {
                self.announce(round, &pages);
                fail_point!("source.announced");
            }
            Action::PeekDirty => {
                let Some(dirty) = self.changes.as_ref().map(Changes::peek) else { return };
                self.looked(dirty, |dirty, page_hints| Event::Peeked { dirty, page_hints });
            }
            Action::TakeDirty => {
                let Some(dirty) = self.changes.as_ref().map(Changes::take) else { return };
                self.looked(dirty, |dirty, page_hints| Event::Dirty { dirty, page_hints });
            }
            Action::SwitchHint => {
                // First, lest a destination on this host that is in a hurry keeps this thread from
                // doing it.
                self.urgent = Urgent::this(Side::Source);
                let invariant = self.vm.invariant();
                // The destination reads them before the guest runs.
                let tables =
                    invariant.as_ref().map(|s| Tables::of_all(s.system.cr3, self.vm.ram()));
                self.tables = tables.iter().flat_map(Tables::pages).collect();
                let switch_hint =
                    invariant.map(|invariant| SwitchHint::new(invariant, &self.written));
                let switch_hint = switch_hint.as_ref().map(SwitchHint::to_bytes);
                self.send(&Message::SwitchHint(switch_hint.unwrap_or_default()));
                self.vm.stop_is_near(true);
            }
            Action::Stop { timeout } => self.stop(timeout),
            Action::SendLast { pages, follow, hold } => {
                self.send_last(pages, &follow, hold, observer)
            }
            Action::Commit(id) => {
                self.send_commit(id);
                fail_point!("source.committed");
            }
            Action::SendFollowing(pages) => self.send_following(&pages),
            Action::Fence => {
                if let Some(paused) = &self.paused {
                    paused.fence(true);
                }
                fail_point!("source.fenced");
            }
            Action::RunHere => self.run_here(),
            Action::HandOn => {
                self.urgent = Urgent::default();
                self.forwarder = self
                    .paused
                    .as_ref()
                    .and_then(|paused| paused.packets_in_transit().ok())
                    .map(Forwarder::new);
                fail_point!("source.handing-on");
            }
            Action::Reconnect { wait } => self.reconnect(wait),
            Action::End(_) => {}
        }
    }

    /// The changes are known.
    fn looked(
        &mut self,
        dirty: Result<PageSet, capture::Error>,
        event: fn(PageSet, PageSet) -> Event,
    ) {
        match dirty {
            Ok(dirty) => {
                self.written = dirty.clone();
                self.events.push_back(event(dirty, self.vm.page_hints()));
            }
            Err(e) => self.failed(&e),
        }
    }

    fn stop(&mut self, timeout: Duration) {
        self.urgent_vcpus = self.vm.urgent_vcpus(Side::Source);
        let paused = match self.vm.stop_for_move(timeout) {
            Ok(paused) => paused,
            Err(e) => return self.failed(&e),
        };
        let (requested, stopped) = paused.times();
        let unsent = self.source.unsent();
        let looked = self.changes.as_ref().map(|changes| changes.last(&paused, unsent));
        let mut needed = paused.queue_pages();
        needed.append(&mut self.tables);
        let quiescent = paused.quiescent();
        self.paused = Some(paused);
        fail_point!("source.stopped", else return self.failed(&crate::fail_point::injected()));
        match looked {
            Some(Ok(Looked { dirty, page_hints })) => {
                self.events.push_back(Event::Stopped(Stopped {
                    requested: requested.saturating_duration_since(self.epoch),
                    stopped: stopped.saturating_duration_since(self.epoch),
                    quiescent,
                    dirty,
                    page_hints,
                    needed,
                }))
            }
            Some(Err(e)) => self.failed(&e),
            None => {}
        }
    }

    fn run_here(&mut self) {
        self.vm.stop_is_near(false);
        self.changes = None;
        (self.urgent, self.urgent_vcpus) = Default::default();
        let Some(paused) = self.paused.take() else { return };
        paused.fence(false);
        fail_point!("source.resuming");
        if let Err(e) = paused.resume_here() {
            tracing::error!("the VM cannot continue: {}", crate::host::with_causes(&e));
        }
    }

    /// After the commit: reconnects to ask, after a while if that failed before. The end of the VM
    /// ends the wait, and so does an operator override, if the destination was asked in vain since.
    fn reconnect(&mut self, wait: bool) {
        self.connection = None;
        let (ended, vouched) = (self.vm.end_fd(), self.vm.vouched_fd());
        let timeout = if wait { ASK_AGAIN } else { Duration::ZERO };
        // What cannot be inspected is asked again.
        let looked = wait_any([ended, vouched].map(Watch::Readable), timeout);
        let [over, said] = looked.unwrap_or_default();
        if over || said && self.asked_since_vouched {
            return self.without_word(over);
        }
        self.asked_since_vouched = said;
        tracing::warn!(
            "the connection broke after the commit: asking {} for the outcome of the move",
            self.to
        );
        let call_off = CallOff::by_end_of(self.vm);
        match Connection::open(&self.to, &self.transport, self.peer, STALLED, &call_off) {
            Ok(mut connection) => {
                connection.known();
                self.connection = Some(connection);
                fail_point!("source.asking");
                self.events.push_back(Event::Reconnected);
            }
            Err(e) => self.events.push_back(Event::LinkLost(crate::host::with_causes(&e))),
        }
    }

    /// The wait for the destination's answer is over: the VM was ended here, or by operator
    /// override.
    fn without_word(&mut self, ended: bool) {
        self.events.push_back(if ended { Event::Abandoned } else { Event::Vouched });
        if !ended {
            self.vm.note_vouched_for();
            eprintln!(
                "vmm-lite: WARNING: {} was handed to {} and goes on here, as it was then: an \
                 operator vouched that it runs nowhere else",
                self.vm.identity().name,
                self.to
            );
        }
    }

    pub(super) fn end(
        &mut self,
        ended: Ended,
        observer: &mut dyn MoveObserver,
    ) -> Result<(), Error> {
        // An observer that does not receive it does not receive the answer either.
        let _ = self.watcher.tell(observer, self.now());
        if let Ended::Failed(failure) = ended {
            return Err(failure.into());
        }
        let mut report = self.source.report();
        if let Some(report) = &mut report {
            report.bytes_left_out = held_by(self.complete, &self.source.left_out());
        }
        observer.moved(Moved {
            to: self.to.clone(),
            peer: self.peer,
            paused: self.paused_there,
            report,
        });
        // Packets may need forwarding for longer than post-copy lasts.
        while let (Some(forwarder), Some(_)) = (&self.forwarder, &self.connection) {
            let timeout = forwarder.due().saturating_duration_since(Instant::now());
            // Whatever ends the wait, this checks.
            let _ = wait_readable(forwarder.fd(), timeout);
            self.hand_on();
        }
        // The source asks nothing from now on, so the destination need not listen any longer.
        self.send(&Message::Heard);
        fail_point!("source.moved");
        if let Some(paused) = self.paused.take() {
            paused.moved()?;
        }
        Ok(())
    }
}
