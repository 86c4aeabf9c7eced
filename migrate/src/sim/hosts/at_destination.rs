//! The destination's host: carries out its state machine's actions, and runs the guest once it is
//! there.

use std::time::Duration;

use super::{FIRST, NEEDED, RECEIVER, To, World};
use crate::{
    brownout::{Brownout, Settled},
    destination::{Action, Destination, Event, Timeouts},
    sim::guest::{Guest, PAGES},
    wire::{self, Accepted, Message, Run, Started},
};

/// How the guest returns to full speed there.
const SETTLED: Settled =
    Settled { brownout: Brownout::Over(1_000_000), page_faults: 7, lost_ns: 50_000 };

/// The state machine for a connection that was made at `now`.
pub(super) fn fresh(now: Duration) -> Destination {
    let timeout =
        Timeouts { silence: Duration::from_secs(10), lost: Some(Duration::from_secs(60)) };
    Destination::new(RECEIVER, timeout, now)
}

impl World {
    /// The guest at the destination reaches full speed.
    pub(super) fn settle(&mut self) {
        if self.settle_in > 0 {
            self.settle_in -= 1;
            if self.settle_in == 0 {
                self.destination_event(Event::Settled(SETTLED));
            }
        }
    }

    /// The guest reads a page at the destination: it is right, or the guest waits for it.
    pub(super) fn touch(&mut self) {
        let page = self.guest.pick();
        let (Some(there), Some(stopped), Some(machine)) =
            (&self.there, &self.stopped_memory, &self.destination)
        else {
            return;
        };
        if machine.lacking().contains(page) {
            self.destination_event(Event::Fault(page));
        } else if !self.guest.page_hints().contains(page) {
            assert_eq!(there[page], stopped[page], "page {page} as the guest sees it");
            self.touched += 1;
        }
    }

    pub(super) fn at_destination(&mut self, message: Message) {
        match message {
            Message::Query(id, receiver) => {
                let outcome = self.ledger.outcome(&id, &receiver);
                if outcome == wire::Outcome::Ran && self.lacks() {
                    self.destination_event(Event::Rejoined);
                    return;
                }
                // A query ends a move that was not committed, and is answered from the ledger.
                self.destination_event(Event::Asked);
                let outcome = self.ledger.outcome(&id, &receiver);
                self.link.send(To::Source, &Message::Outcome(id, outcome));
            }
            Message::Pages(pages) => {
                let content: Vec<_> =
                    pages.iter().map(|(n, page)| (*n, Guest::number(page))).collect();
                self.put(&content);
                let runs = content.iter().map(|(n, _)| (*n, 1)).collect();
                self.destination_event(Event::Pages(runs));
            }
            message => {
                if let Message::Zero(runs) = &message {
                    let zeros: Vec<_> = numbers(runs).map(|n| (n, 0)).collect();
                    self.put(&zeros);
                }
                self.destination_event(Event::Message(message));
            }
        }
    }

    /// Puts pages into the VM's memory: only missing ones while it runs.
    fn put(&mut self, content: &[(u64, u64)]) {
        let Some(machine) = self.destination.as_ref().filter(|d| d.receives()) else { return };
        let running = machine.runs();
        let memory = if running { &mut self.there } else { &mut self.prepared };
        let Some(memory) = memory else { return };
        for &(page, number) in content {
            if !running || machine.lacking().contains(page as usize) {
                memory[page as usize] = number;
            }
        }
    }

    pub(super) fn destination_event(&mut self, event: Event) {
        let Some(machine) = &mut self.destination else { return };
        let actions = machine.handle(event, self.now);
        let id = machine.id();
        for action in actions {
            match action {
                Action::Send(message) => self.link.send(To::Source, &message),
                Action::Prepare(_) => {
                    for _ in 0..2 {
                        self.link.send(To::Source, &Message::Preparing);
                    }
                    self.prepared = Some(vec![u64::MAX; PAGES]);
                    let accepted = Accepted { follow: true, apply_ns: 1000 };
                    self.destination_event(Event::Prepared(Ok(accepted)));
                }
                Action::Forget(runs) => {
                    let memory =
                        self.prepared.as_mut().expect("prepared before pages are forgotten");
                    assert!(numbers(&runs).all(|page| page as usize >= FIRST));
                    numbers(&runs).for_each(|page| memory[page as usize] = u64::MAX);
                    self.destination_event(Event::Forgot(Ok(())));
                }
                Action::Supply(page) => panic!("page {page} is neither there nor missing"),
                Action::Complete => {
                    self.complete = true;
                    self.check_memory("complete");
                }
                Action::AwaitSource(_) => assert!(self.lacks()),
                Action::Lost(_) => panic!("a source that is alive was declared dead"),
                Action::SwitchHint(_) | Action::Prewake => {}
                Action::Apply(state) => {
                    self.state_there = Some(state);
                    self.destination_event(Event::Applied(Ok(())));
                }
                Action::Run => {
                    let lacking = self.destination.as_ref().map(|d| d.lacking().clone());
                    assert!(
                        NEEDED
                            .clone()
                            .all(|page| lacking.as_ref().is_some_and(|l| !l.contains(page))),
                        "it runs without what the VMM needs"
                    );
                    assert!(!self.runs_here, "the destination runs while the source does");
                    assert_eq!(
                        self.state_there.as_deref(),
                        Some(&b"state"[..]),
                        "it runs without its state"
                    );
                    self.ledger.ran(id.expect("a move that committed said its number"));
                    self.there = self.prepared.take();
                    self.complete = lacking.is_some_and(|lacking| lacking.is_empty());
                    self.destination_event(Event::Runs(Started::default()));
                    self.settle_in = 3;
                }
                Action::Deliver(_) => {}
                Action::Discard(_) => {
                    assert!(self.there.is_none(), "a VM that runs is discarded");
                    self.prepared = None;
                }
                Action::End => {}
            }
        }
    }
}

fn numbers(runs: &[Run]) -> impl Iterator<Item = u64> {
    runs.iter().flat_map(|&(first, count)| first..first + count)
}
