use super::*;
use crate::wire::Accepted;

fn seconds(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

/// One whose offer is out, at 1 s.
fn offering() -> Source {
    let (name, identity) = (String::new(), Vec::new());
    let (memory_size, interface_version, network) = (4096, 1, false);
    let receiver = ReceiverId::default();
    let offer = Offer { receiver, name, memory_size, interface_version, network, identity };
    let settings = Settings { timeout: Some(seconds(60.0)), ..Settings::default() };
    let (mut source, _) = Source::begin([1; 16], offer, settings, seconds(0.5));
    let welcome = Event::Message(Message::Welcome([1; 16], [2; 16]));
    assert!(matches!(source.handle(welcome, seconds(1.0))[..], [Action::Send(Message::Offer(_))]));
    source
}

fn is_over(actions: &[Action]) -> bool {
    matches!(actions, [Action::RunHere, .., Action::End(Ended::Failed(Failure::Silent { .. }))])
}

#[test]
fn a_destination_that_says_nothing_while_it_prepares_is_given_up_within_a_second() {
    let mut source = offering();
    assert!(source.handle(Event::Tick, seconds(1.8)).is_empty());
    assert!(is_over(&source.handle(Event::Tick, seconds(1.9))));
}

#[test]
fn one_that_says_that_it_is_at_it_is_waited_for_but_not_for_ever() {
    let preparing = Event::Message(Message::Preparing);
    let mut source = offering();
    for n in 1..=14 {
        let now = seconds(1.0 + 0.8 * f64::from(n));
        assert!(source.handle(Event::Tick, now).is_empty());
        assert!(source.handle(preparing.clone(), now).is_empty());
    }
    let accept = Event::Message(Message::Accept(Accepted::default()));
    let mut accepted = source.clone();
    assert_eq!(accepted.handle(accept, seconds(12.5))[0], Action::StartLog);
    for n in 0..10 {
        source.handle(preparing.clone(), seconds(12.5 + 0.3 * f64::from(n)));
    }
    assert!(source.handle(Event::Tick, seconds(15.9)).is_empty());
    assert!(is_over(&source.handle(Event::Tick, seconds(16.0))));
}

#[test]
fn the_time_in_which_there_was_no_connection_counts() {
    let mut source = offering();
    for n in 0..3 {
        source.handle(Event::Message(Message::Preparing), seconds(1.0 + f64::from(n)));
    }
    let settings = Settings { timeout: Some(seconds(1.5)), ..Settings::default() };
    source.settings = settings;
    assert_eq!(source.deadline(), Some(seconds(1.5)), "and not that long after it began");
    let actions = source.handle(Event::Tick, seconds(1.5));
    assert!(matches!(actions[..], [.., Action::End(Ended::Failed(Failure::Timeout { .. }))]));
}
