use super::{bounds::NAMED_MOST, *};
use crate::{offer::Offer, precopy::ROUNDS_MAX, wire::Accepted};

const ME: ReceiverId = [7; 16];
const SECOND: Duration = Duration::from_secs(1);

fn machine(lost: Option<Duration>) -> Destination {
    let timeout = Timeouts { silence: 5 * SECOND, lost };
    let mut machine = Destination::new(ME, timeout, Duration::ZERO);
    machine.handle(Event::Message(Message::Hello([1; 16])), Duration::ZERO);
    machine
}

fn offer(receiver: ReceiverId) -> Event {
    let name = String::new();
    let (memory_size, interface_version, network, identity) = (8 * 4096, 1, false, Vec::new());
    let offer = Offer { receiver, name, memory_size, interface_version, network, identity };
    Event::Message(Message::Offer(Box::new(offer)))
}

/// A destination whose VM has run without pages 2 and 3 since time zero.
fn lacking(lost: Option<Duration>) -> Destination {
    let mut machine = machine(lost);
    for event in [
        offer(ME),
        Event::Prepared(Ok(Accepted { follow: true, apply_ns: 0 })),
        Event::Message(Message::Follow(vec![(2, 2)])),
        Event::Message(Message::Commit([1; 16], vec![1])),
        Event::Applied(Ok(())),
    ] {
        machine.handle(event, Duration::ZERO);
    }
    assert!(machine.runs());
    machine
}

fn missing() -> PageSet {
    let mut pages = PageSet::none(8);
    pages.insert_runs(&[(2, 2)]);
    pages
}

/// Lets time pass until `end`, with every tick when it is due. Returns the actions and when they
/// came.
fn pass(machine: &mut Destination, end: Duration) -> Vec<(Duration, Action)> {
    let mut done = Vec::new();
    while let Some(at) = machine.deadline().filter(|at| *at <= end && !machine.ended()) {
        let actions = machine.handle(Event::Tick, at);
        assert!(!actions.is_empty(), "a tick that was due at {at:?} and did nothing");
        done.extend(actions.into_iter().map(|action| (at, action)));
    }
    done
}

#[test]
fn an_offer_to_another_receiver_is_no_offer() {
    let take = |event| machine(None).handle(event, Duration::ZERO);
    assert!(matches!(&take(offer(ME))[..], [Action::Prepare(_)]));
    assert!(matches!(
        &take(offer([8; 16]))[..],
        [Action::Send(Message::Abort(_)), Action::Discard(_), Action::End]
    ));
}

#[test]
fn a_source_that_is_cut_off_is_awaited_without_limit() {
    // The network reports the loss at once, or says nothing at all.
    for said in [true, false] {
        let mut machine = lacking(None);
        if said {
            let actions = machine.handle(Event::LinkLost("cut".into()), SECOND);
            assert_eq!(actions, [Action::AwaitSource(Away::Link("cut".into()))]);
        }
        let year = 365 * 24 * 3600 * SECOND;
        let done = pass(&mut machine, year);
        if said {
            assert_eq!(done, []);
        } else {
            assert!(matches!(&done[..], [(at, Action::AwaitSource(_))] if *at == 5 * SECOND));
        }
        assert!(machine.runs() && *machine.lacking() == missing());
        // What the guest waited for meanwhile was not lost.
        assert_eq!(machine.handle(Event::Fault(3), year), []);
        assert_eq!(
            machine.handle(Event::Rejoined, year)[1..],
            [Message::Lacks(vec![(2, 2)]), Message::Lacks(vec![]), Message::Want(vec![(3, 1)])]
                .map(Action::Send)
        );
        let actions = machine.handle(Event::Pages(vec![(2, 2)]), year + SECOND);
        assert!(actions.contains(&Action::Complete), "{actions:?}");
        assert_eq!(machine.deadline(), None);
    }
}

#[test]
fn a_limit_to_the_wait_holds_and_counts_from_the_last_message() {
    for cut in [true, false] {
        let mut machine = lacking(Some(60 * SECOND));
        machine.handle(Event::Pages(vec![(2, 1)]), 3 * SECOND);
        if cut {
            machine.handle(Event::LinkLost("cut".into()), 4 * SECOND);
        }
        let done = pass(&mut machine, 62 * SECOND);
        assert!(machine.runs() && !done.iter().any(|(_, a)| matches!(a, Action::Lost(_))));
        let done = pass(&mut machine, 1000 * SECOND);
        let mut pages = PageSet::none(8);
        pages.insert(3);
        assert_eq!(done, [Action::Lost(pages), Action::End].map(|a| (63 * SECOND, a)));
    }
    // After a source that came back in time the limit starts anew.
    let mut machine = lacking(Some(60 * SECOND));
    machine.handle(Event::LinkLost("cut".into()), SECOND);
    machine.handle(Event::Rejoined, 59 * SECOND);
    let done = pass(&mut machine, 118 * SECOND);
    assert!(matches!(&done[..], [(at, Action::AwaitSource(_))] if *at == 64 * SECOND), "{done:?}");
}

/// A destination that receives memory.
fn receiving() -> Destination {
    let mut machine = machine(None);
    for event in [offer(ME), Event::Prepared(Ok(Accepted { follow: true, apply_ns: 0 }))] {
        machine.handle(event, Duration::ZERO);
    }
    assert!(machine.receives());
    machine
}

/// Hands a message to the state machine. Returns whether it has cancelled the move.
fn takes(machine: &mut Destination, message: Message) -> bool {
    let actions = machine.handle(Event::Message(message), Duration::ZERO);
    let reclaimed = matches!(&actions[..], [Action::Send(Message::Abort(_)), ..]);
    assert_eq!(machine.ended(), reclaimed, "{actions:?}");
    !reclaimed
}

#[test]
fn messages_that_may_be_sent_once_are_refused_the_second_time() {
    for message in [Message::SwitchHint(Vec::new()), Message::Stopping] {
        let mut machine = receiving();
        assert!(takes(&mut machine, message.clone()));
        assert!(takes(&mut machine, Message::RoundEnd(1)));
        assert!(!takes(&mut machine, message));
    }
}

#[test]
fn a_source_makes_a_bounded_number_of_rounds() {
    let mut machine = receiving();
    for round in 0..ROUNDS_MAX {
        assert!(takes(&mut machine, Message::RoundEnd(round)));
    }
    assert!(!takes(&mut machine, Message::RoundEnd(ROUNDS_MAX)));
}

#[test]
fn pages_are_named_a_bounded_number_of_times_in_a_round() {
    fn all() -> Vec<(u64, u64)> {
        vec![(0, 8)]
    }
    let pages = |machine: &mut Destination| {
        machine.handle(Event::Pages(all()), Duration::ZERO);
        !machine.ended()
    };
    type Way = Box<dyn Fn(&mut Destination) -> bool>;
    let ways: [Way; 3] = [
        Box::new(pages),
        Box::new(|machine| takes(machine, Message::Zero(all()))),
        Box::new(|machine| takes(machine, Message::Follow(all()))),
    ];
    for first in &ways {
        for then in &ways {
            let mut machine = receiving();
            for round in 0..ROUNDS_MAX {
                assert!(first(&mut machine) && then(&mut machine));
                assert!(takes(&mut machine, Message::RoundEnd(round)));
            }
            assert!(first(&mut machine) && then(&mut machine), "in the last pages too");
            assert!(!first(&mut machine));
        }
    }
    // A message that names no pages counts, as it has to be read.
    for nothing in [Message::Zero(Vec::new()), Message::Follow(Vec::new())] {
        let mut machine = receiving();
        let said = (0..).take_while(|_| takes(&mut machine, nothing.clone())).count() as u64;
        assert_eq!(said, NAMED_MOST * 8);
    }
}
