use super::*;
use crate::{offer::Offer, wire::Accepted};

const ME: ReceiverId = [7; 16];
const SECOND: Duration = Duration::from_secs(1);

fn machine(lost: Option<Duration>) -> Destination {
    let patience = Patience { silence: 5 * SECOND, lost };
    let mut machine = Destination::new(ME, patience, Duration::ZERO);
    machine.handle(Event::Message(Message::Hello([1; 16])), Duration::ZERO);
    machine
}

fn offer(receiver: ReceiverId) -> Event {
    let name = String::new();
    let (memory_size, interface_version, network, identity) = (8 * 4096, 1, false, Vec::new());
    let offer = Offer { receiver, name, memory_size, interface_version, network, identity };
    Event::Message(Message::Offer(Box::new(offer)))
}

/// One whose VM runs without pages 2 and 3 since the beginning of time.
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

fn missing() -> Pages {
    let mut pages = Pages::none(8);
    pages.insert_runs(&[(2, 2)]);
    pages
}

/// Lets time pass until `end`, and the machine have its ticks when they are due: what it does, and when.
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
fn a_source_that_is_cut_off_is_awaited_for_as_long_as_it_takes() {
    // With the link gone at once, as the network says, or with no word at all.
    for said in [true, false] {
        let mut machine = lacking(None);
        if said {
            let actions = machine.handle(Event::LinkLost("cut".into()), SECOND);
            assert_eq!(actions, [Action::AwaitSource("cut".into())]);
        }
        let year = 365 * 24 * 3600 * SECOND;
        let done = pass(&mut machine, year);
        if said {
            assert_eq!(done, []);
        } else {
            assert!(matches!(&done[..], [(at, Action::AwaitSource(_))] if *at == 5 * SECOND));
        }
        assert!(machine.runs() && *machine.lacking() == missing());
        // Nothing was lost of what the guest waited for meanwhile.
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
fn a_limit_to_the_wait_is_kept_and_counts_from_the_last_word() {
    for cut in [true, false] {
        let mut machine = lacking(Some(60 * SECOND));
        machine.handle(Event::Pages(vec![(2, 1)]), 3 * SECOND);
        if cut {
            machine.handle(Event::LinkLost("cut".into()), 4 * SECOND);
        }
        let done = pass(&mut machine, 62 * SECOND);
        assert!(machine.runs() && !done.iter().any(|(_, a)| matches!(a, Action::Lost(_))));
        let done = pass(&mut machine, 1000 * SECOND);
        let mut pages = Pages::none(8);
        pages.insert(3);
        assert_eq!(done, [Action::Lost(pages), Action::End].map(|a| (63 * SECOND, a)));
    }
    // One that came back in time begins with a new limit.
    let mut machine = lacking(Some(60 * SECOND));
    machine.handle(Event::LinkLost("cut".into()), SECOND);
    machine.handle(Event::Rejoined, 59 * SECOND);
    let done = pass(&mut machine, 118 * SECOND);
    assert!(matches!(&done[..], [(at, Action::AwaitSource(_))] if *at == 64 * SECOND), "{done:?}");
}

/// One that takes memory.
fn receiving() -> Destination {
    let mut machine = machine(None);
    for event in [offer(ME), Event::Prepared(Ok(Accepted { follow: true, apply_ns: 0 }))] {
        machine.handle(event, Duration::ZERO);
    }
    assert!(machine.receives());
    machine
}

#[test]
fn a_source_says_once_that_the_switch_is_near() {
    let mut machine = receiving();
    let brace = || Event::Message(Message::Brace(Vec::new()));
    assert_eq!(machine.handle(brace(), Duration::ZERO), [Action::Brace(Vec::new())]);
    machine.handle(Event::Message(Message::RoundEnd(1)), Duration::ZERO);
    machine.handle(brace(), Duration::ZERO);
    assert!(machine.ended());
}

#[test]
fn memory_becomes_zero_a_bounded_number_of_times() {
    let mut machine = receiving();
    let zero = || Event::Message(Message::Zero(vec![(0, 8)]));
    for round in 0..100 {
        machine.handle(zero(), Duration::ZERO);
        machine.handle(Event::Message(Message::RoundEnd(round)), Duration::ZERO);
        assert!(!machine.ended());
    }
    for _ in 0..ZEROED_MOST {
        machine.handle(zero(), Duration::ZERO);
        assert!(!machine.ended());
    }
    let actions = machine.handle(zero(), Duration::ZERO);
    assert!(machine.ended());
    assert!(matches!(&actions[..], [Action::Send(Message::Abort(_)), ..]), "{actions:?}");
}
