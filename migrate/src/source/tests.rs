use super::*;
use crate::{
    brownout::Brownout,
    offer::Refusal,
    wire::{Accepted, Outcome, Run},
};

fn seconds(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

fn offer(pages: usize) -> Offer {
    let (name, identity) = (String::new(), Vec::new());
    let (memory_size, interface_version, network) = ((pages * PAGE) as u64, 1, false);
    let receiver = ReceiverId::default();
    Offer { receiver, name, memory_size, interface_version, network, identity }
}

/// A source that has sent its offer, at 1 s.
fn offering() -> Source {
    let settings = Settings { timeout: Some(seconds(60.0)), ..Settings::default() };
    let (mut source, _) = Source::begin([1; 16], offer(1), settings, seconds(0.5));
    let welcome = Event::Message(Message::Welcome([1; 16], [2; 16]));
    assert!(matches!(source.handle(welcome, seconds(1.0))[..], [Action::Send(Message::Offer(_))]));
    source
}

fn is_over(actions: &[Action]) -> bool {
    matches!(actions, [Action::RunHere, .., Action::End(Ended::Failed(Failure::Silent { .. }))])
}

#[test]
fn a_destination_that_is_silent_while_it_prepares_fails_the_move_within_a_second() {
    let mut source = offering();
    assert!(source.handle(Event::Tick, seconds(1.8)).is_empty());
    assert!(is_over(&source.handle(Event::Tick, seconds(1.9))));
}

#[test]
fn a_destination_that_reports_preparing_is_awaited_but_not_for_ever() {
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
fn the_time_without_a_connection_counts() {
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

/// A source of eight pages that has sent its commit. Of the pages that the guest wrote after they
/// were sent, none fits the blackout, and they are post-copied.
fn committed(written: &[Run]) -> Source {
    let settings = Settings { mode: Mode::Hybrid, ..Settings::default() };
    let (mut source, _) = Source::begin([1; 16], offer(8), settings, seconds(0.0));
    let message = Event::Message;
    let none = || PageSet::none(8);
    let mut dirty = none();
    dirty.insert_runs(written);
    let stopped = Stopped {
        requested: seconds(1.0),
        stopped: seconds(1.0),
        quiescent: true,
        dirty: none(),
        page_hints: none(),
        needed: Vec::new(),
    };
    for event in [
        message(Message::Welcome([1; 16], [2; 16])),
        message(Message::Accept(Accepted { follow: true, apply_ns: 0 })),
        Event::Sent(Sent { bytes: 1 << 20, full: 8, ..Sent::default() }),
    ] {
        source.handle(event, seconds(0.0));
    }
    for event in [
        message(Message::RoundDone(0)),
        Event::Dirty { dirty, page_hints: none() },
        Event::Sent(Sent::default()),
        message(Message::RoundDone(1)),
        Event::Stopped(stopped),
        Event::Held,
        Event::Sent(Sent::default()),
    ] {
        source.handle(event, seconds(1.0));
    }
    assert!(source.committed());
    source
}

/// Hands messages to it one after the other. Returns the actions of the last.
fn told(source: &mut Source, messages: impl IntoIterator<Item = Message>) -> Vec<Action> {
    let tell = |message| source.handle(Event::Message(message), seconds(1.1));
    messages.into_iter().map(tell).last().unwrap_or_default()
}

#[test]
fn a_lost_report_of_the_guests_waits_is_not_reported_as_no_wait() {
    let waited = |source: &Source| {
        let report = source.report().expect("a report");
        assert!(report.pages_following > 0);
        [report.pages_waited_for, report.waited_ns, report.worst_wait_ns]
    };
    let arrival = Arrival { waited: 1, waited_ns: 20, worst_ns: 20 };
    let mut heard = committed(&[(1, 2)]);
    let running = Message::Running(Started::default());
    told(&mut heard, [running.clone(), Message::Filled(2), Message::Whole(arrival)]);
    assert_eq!(waited(&heard), [Some(1), Some(20), Some(20)]);

    let mut lost = committed(&[(1, 2)]);
    told(&mut lost, [running, Message::Filled(2)]);
    lost.handle(Event::LinkLost("gone".into()), seconds(1.2));
    lost.handle(Event::Reconnected, seconds(1.3));
    let end = told(&mut lost, [Message::Outcome([1; 16], Outcome::Ran)]);
    assert_eq!(end, [Action::End(Ended::Moved)]);
    assert_eq!(waited(&lost), [None; 3]);
}

#[test]
fn without_post_copy_the_source_does_not_wait_for_whole() {
    let mut source = committed(&[]);
    let settled = Settled { brownout: Brownout::Over(0), page_faults: 0, lost_ns: 0 };
    let running = Message::Running(Started::default());
    let end = told(&mut source, [running, Message::Settled(settled)]);
    assert_eq!(
        end,
        [Action::End(Ended::Moved)],
        "the destination, which lacks nothing, never says that it is whole"
    );
    let report = source.report().expect("a report");
    assert_eq!((report.pages_following, report.pages_waited_for), (0, Some(0)));
}

#[test]
fn a_host_that_could_not_report_the_outcome_is_not_asked_again_at_once() {
    let mut source = committed(&[]);
    let at_once = [Action::Reconnect { wait: false }];
    let later = [Action::Reconnect { wait: true }];
    let lost = || Event::LinkLost("gone".into());
    assert_eq!(
        source.handle(lost(), seconds(1.2)),
        at_once,
        "a link that broke says nothing of the host"
    );
    assert_eq!(source.handle(lost(), seconds(1.3)), later, "no listener there");
    for said in [Message::Refuse(Refusal::Busy), Message::Outcome([1; 16], Outcome::Unknown)] {
        let ask = source.handle(Event::Reconnected, seconds(1.4));
        assert!(matches!(ask[..], [Action::Send(Message::Query(..))]), "{ask:?}");
        assert_eq!(told(&mut source, [said]), later);
    }
    source.handle(Event::Reconnected, seconds(1.5));
    assert_eq!(
        told(&mut source, [Message::Outcome([1; 16], Outcome::Ran)]),
        [Action::End(Ended::Moved)]
    );
}
