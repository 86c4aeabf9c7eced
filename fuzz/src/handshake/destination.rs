//! The destination, with an honest driver and an honest source that react to its actions.

use super::{
    Course, ID, ME, PAGES, arrives,
    message::{ArbitraryMessage, settled},
    offer,
};
use crate::wire::round_trip;
use arbitrary::{Arbitrary, Unstructured};
use migrate::{
    destination::{Action, Destination, Event, Ledger, Timeouts},
    offer::Refusal,
    wire::{Accepted, Kind, Message, Outcome, Run, Started},
};
use std::{collections::VecDeque, time::Duration};

/// Post-copy pages in a successful move.
const FOLLOW: Run = (60, 10);

#[derive(Arbitrary, Debug)]
enum At<'a> {
    Message(ArbitraryMessage<'a>),
    Pages(Vec<Run>),
    Prepared(bool, bool),
    Forgot(bool),
    Fault(u8),
    Rejoined,
    VmEnded,
    Applied(bool),
    Runs,
    Settled(u8, u64, u64, u64),
    LinkLost,
    Asked,
    Tick(u32),
    /// The next event of a successful move. It is the last variant: see the parent module.
    Next,
}

/// One move.
pub fn drive(input: &mut Unstructured<'_>) -> Course {
    let mut now = Duration::ZERO;
    let timeout =
        Timeouts { silence: Duration::from_secs(10), lost: Some(Duration::from_secs(60)) };
    let mut machine = Destination::new(ME, timeout, now);
    let mut ledger = Ledger::new(ME);
    let together = input.arbitrary().unwrap_or(true);
    let hello = Event::Message(Message::Hello(ID));
    let mut seen = Seen { together, next: [hello].into(), ..Seen::default() };
    while let Ok(what) = input.arbitrary::<At<'_>>() {
        if let Some(event) = event(&what, &mut seen, &mut now) {
            match &event {
                Event::Prepared(Ok(_)) => seen.prepared |= seen.asked_to_prepare,
                Event::Applied(Ok(())) => seen.applied |= seen.asked_to_apply,
                Event::Message(message) => {
                    seen.course.saw(message.kind());
                    let commit =
                        matches!(message, Message::Commit(id, _) if machine.id() == Some(*id));
                    seen.committed |= commit;
                }
                Event::Pages(_) => seen.course.saw(Kind::Pages),
                _ => {}
            }
            let actions = machine.handle(event, now);
            seen.look(actions, &machine, &mut ledger);
            assert!(!machine.runs() || seen.ran);
            if let Some(id) = machine.id() {
                let ran = ledger.outcome(&id, &ME) == Outcome::Ran;
                assert_eq!(ran, seen.ran);
                assert_eq!(ledger.outcome(&id, &[0; 16]), Outcome::Unknown);
            }
        }
        if input.is_empty() {
            break;
        }
    }
    seen.course
}

fn event(what: &At<'_>, seen: &mut Seen, now: &mut Duration) -> Option<Event> {
    Some(match what {
        At::Message(message) => Event::Message(message.arrives()?),
        At::Pages(runs) => {
            // Drivers name pages that passed the wire's checks.
            let Message::Zero(runs) = arrives(&Message::Zero(runs.clone()))? else { return None };
            Event::Pages(runs)
        }
        At::Forgot(well) => Event::Forgot(well.then_some(()).ok_or("no".into())),
        At::Fault(page) => Event::Fault((*page).into()),
        At::Rejoined => Event::Rejoined,
        At::VmEnded => Event::VmEnded,
        At::Prepared(well, follow) => {
            let accepted = Accepted { follow: *follow, apply_ns: 1 };
            Event::Prepared(well.then_some(accepted).ok_or(Refusal::Network))
        }
        At::Applied(well) => Event::Applied(well.then_some(()).ok_or("no".into())),
        At::Runs => Event::Runs(Started::default()),
        At::Settled(what, ns, page_faults, lost_ns) => {
            Event::Settled(settled(*what, *ns, *page_faults, *lost_ns))
        }
        At::LinkLost => Event::LinkLost("gone".into()),
        At::Asked => Event::Asked,
        At::Tick(us) => {
            *now += Duration::from_micros((*us).into());
            Event::Tick
        }
        At::Next => return seen.next.pop_front(),
    })
}

/// The actions so far, and the events that follow from them in a successful move.
#[derive(Debug, Default)]
struct Seen {
    asked_to_prepare: bool,
    prepared: bool,
    asked_to_apply: bool,
    applied: bool,
    /// Whether the commit of this move has arrived.
    committed: bool,
    ran: bool,
    discarded: bool,
    ended: bool,
    /// Whether the source sends the state with the commit.
    together: bool,
    next: VecDeque<Event>,
    course: Course,
}

impl Seen {
    fn look(&mut self, actions: Vec<Action>, machine: &Destination, ledger: &mut Ledger) {
        for action in actions {
            assert!(!self.ended, "it continues after its end: {action:?}");
            match &action {
                Action::Send(message) => {
                    round_trip(message, PAGES);
                    self.course.saw(message.kind());
                }
                Action::Prepare(_) => self.asked_to_prepare = true,
                Action::Apply(_) => self.asked_to_apply = true,
                Action::Run => {
                    assert!(
                        self.prepared && self.applied,
                        "it runs a VM that is not prepared and applied"
                    );
                    assert!(self.committed, "it runs without a commit");
                    assert!(!self.ran && !self.discarded, "it runs twice, or after discarding");
                    self.ran = true;
                    ledger.ran(machine.id().expect("a move that runs has a number"));
                }
                Action::Discard(_) => {
                    assert!(!self.ran, "it discards a running VM");
                    self.discarded = true;
                }
                Action::End => (self.ended, self.course.made) = (true, self.ran),
                _ => {}
            }
            self.answer(&action);
        }
        assert_eq!(machine.ended(), self.ended);
    }

    /// The driver carries out the action, and the source continues.
    fn answer(&mut self, action: &Action) {
        let (first, count) = FOLLOW;
        let message = Event::Message;
        let state = || vec![1, 2, 3];
        match action {
            Action::Send(Message::Welcome(..)) => {
                self.next.push_back(message(Message::Offer(Box::new(offer(ME)))));
            }
            Action::Prepare(_) => {
                let accepted = Accepted { follow: true, apply_ns: 1 };
                self.next.push_back(Event::Prepared(Ok(accepted)));
            }
            Action::Send(Message::Accept(_)) => {
                let pages = Event::Pages(vec![(0, PAGES as u64)]);
                self.next.extend([pages, message(Message::RoundEnd(0))]);
            }
            Action::Send(Message::RoundDone(0)) => {
                self.next.push_back(message(Message::SwitchHint(state())));
                self.next.push_back(message(Message::Follow(vec![FOLLOW])));
                self.next.push_back(message(Message::RoundEnd(1)));
            }
            Action::Send(Message::RoundDone(1)) => {
                let commit = if self.together {
                    Message::Commit(ID, state())
                } else {
                    Message::State(state())
                };
                self.next.push_back(message(Message::Stopping));
                self.next.extend([message(Message::Zero(vec![(0, 1)])), message(commit)]);
            }
            Action::Forget(_) => self.next.push_back(Event::Forgot(Ok(()))),
            Action::Apply(_) => self.next.push_back(Event::Applied(Ok(()))),
            Action::Send(Message::Ready) => {
                self.next.push_back(message(Message::Commit(ID, Vec::new())));
            }
            Action::Run => self.next.push_back(Event::Runs(Started::default())),
            Action::Send(Message::Running(_)) => {
                self.next.push_back(message(Message::Forwarded(state())));
                self.next.push_back(Event::Fault(first as usize));
                self.next.push_back(message(Message::ForwardedEnd));
                self.next.push_back(message(Message::Heard));
                self.next.push_back(Event::Settled(settled(0, 1, 1, 1)));
            }
            // All missing pages arrive: present ones are skipped.
            Action::Send(Message::Want(runs)) => {
                self.next.push_back(Event::Pages(runs.clone()));
                self.next.push_back(message(Message::Zero(vec![(first + 1, count - 1)])));
            }
            Action::Send(Message::Lacks(runs)) if !runs.is_empty() => {
                self.next.push_back(Event::Pages(runs.clone()));
            }
            Action::AwaitSource(_) => {
                // What was on the old connection no longer arrives.
                self.next.retain(|event| !matches!(event, Event::Message(_) | Event::Pages(_)));
                self.next.push_back(Event::Rejoined);
            }
            Action::Send(Message::Outcome(..)) => {
                self.next.push_back(message(Message::ForwardedEnd))
            }
            _ => {}
        }
    }
}
