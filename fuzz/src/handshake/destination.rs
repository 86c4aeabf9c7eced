//! The destination's machine, and the driver that answers it.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use migrate::{
    destination::{Action, Destination, Event, Ledger, Patience},
    offer::Refusal,
    wire::{Accepted, Message, Outcome, Run, Started},
};

use super::{
    ME, PAGES,
    said::{Said, arrives, settled},
};
use crate::wire::round_trip;

#[derive(Arbitrary, Debug)]
enum AtDestination<'a> {
    Said(Said<'a>),
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
    /// What the machine asked for last is done as it should be.
    Done,
}

/// What was given out so far.
#[derive(Debug, Default)]
struct Given {
    prepared: bool,
    applied: bool,
    /// Whether the commit of this move has come.
    committed: bool,
    ran: bool,
    discarded: bool,
    ended: bool,
    last: Option<Action>,
}

/// Feeds the machine with what is in `input`.
pub fn feed(input: &mut Unstructured<'_>) {
    let mut now = Duration::ZERO;
    let patience =
        Patience { silence: Duration::from_secs(10), lost: Some(Duration::from_secs(60)) };
    let mut machine = Destination::new(ME, patience, now);
    let mut ledger = Ledger::new(ME);
    let mut seen = Given::default();
    while let Ok(what) = input.arbitrary::<AtDestination<'_>>() {
        let Some(event) = at_destination(&what, &seen, &mut now) else { continue };
        match &event {
            Event::Prepared(Ok(_)) => {
                seen.prepared |= matches!(seen.last, Some(Action::Prepare(_)))
            }
            Event::Applied(Ok(())) => seen.applied |= matches!(seen.last, Some(Action::Apply(_))),
            Event::Message(Message::Commit(id, _)) => seen.committed |= machine.id() == Some(*id),
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
        if input.is_empty() {
            break;
        }
    }
}

fn at_destination(what: &AtDestination<'_>, seen: &Given, now: &mut Duration) -> Option<Event> {
    Some(match what {
        AtDestination::Said(said) => Event::Message(said.arrives()?),
        AtDestination::Pages(runs) => {
            // Drivers name pages that the wire has let through.
            let Message::Zero(runs) = arrives(&Message::Zero(runs.clone()))? else { return None };
            Event::Pages(runs)
        }
        AtDestination::Forgot(well) => Event::Forgot(well.then_some(()).ok_or("no".into())),
        AtDestination::Fault(page) => Event::Fault((*page).into()),
        AtDestination::Rejoined => Event::Rejoined,
        AtDestination::VmEnded => Event::VmEnded,
        AtDestination::Prepared(well, follow) => {
            let accepted = Accepted { follow: *follow, apply_ns: 1 };
            Event::Prepared(well.then_some(accepted).ok_or(Refusal::Network))
        }
        AtDestination::Applied(well) => Event::Applied(well.then_some(()).ok_or("no".into())),
        AtDestination::Runs => Event::Runs(Started::default()),
        AtDestination::Settled(what, ns, page_faults, lost_ns) => {
            Event::Settled(settled(*what, *ns, *page_faults, *lost_ns))
        }
        AtDestination::LinkLost => Event::LinkLost("gone".into()),
        AtDestination::Asked => Event::Asked,
        AtDestination::Tick(us) => {
            *now += Duration::from_micros((*us).into());
            Event::Tick
        }
        AtDestination::Done => match seen.last.as_ref()? {
            Action::Prepare(_) => Event::Prepared(Ok(Accepted { follow: true, apply_ns: 1 })),
            Action::Forget(_) => Event::Forgot(Ok(())),
            Action::Apply(_) => Event::Applied(Ok(())),
            Action::Run => Event::Runs(Started::default()),
            _ => return None,
        },
    })
}

impl Given {
    fn look(&mut self, actions: Vec<Action>, machine: &Destination, ledger: &mut Ledger) {
        for action in actions {
            assert!(!self.ended, "it goes on after its end: {action:?}");
            match &action {
                Action::Send(message) => round_trip(message, PAGES),
                Action::Run => {
                    assert!(self.prepared && self.applied, "it runs what is not there");
                    assert!(self.committed, "it runs without a commit");
                    assert!(!self.ran && !self.discarded, "it runs twice, or what it threw away");
                    self.ran = true;
                    ledger.ran(machine.id().expect("a move that runs has a number"));
                }
                Action::Discard(_) => {
                    assert!(!self.ran, "it throws away what runs");
                    self.discarded = true;
                }
                Action::End => self.ended = true,
                _ => {}
            }
            self.last = Some(action);
        }
        assert_eq!(machine.ended(), self.ended);
    }
}
