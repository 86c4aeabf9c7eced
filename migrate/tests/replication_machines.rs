//! What the state machines of a replica set do step by step: heartbeats, silence, lag, retries,
//! swaps, and how each of them ends.

use std::time::Duration;

use migrate::replication::{
    Commit, Primary, Settings, Standby,
    arbiter::{Answer, MemberId, Record, Request, SetId, Term, Version, Versioned},
    primary::{Action, Event, Lost, News},
    standby,
    wire::{Message, RecordsHead},
};

const SET: SetId = SetId([9; 16]);
const PRIMARY: MemberId = MemberId([1; 16]);
const STANDBY: MemberId = MemberId([2; 16]);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A primary whose standby is in sync, in term 2, at time 0.
fn protected(settings: Settings) -> Primary {
    let (mut primary, _) = Primary::begin(PRIMARY, SET, settings, 0, ms(0));
    primary.handle(Event::Arbiter(Answer::Swapped(Version(1))), ms(0));
    primary.handle(Event::Seeded { member: STANDBY, base: 0 }, ms(0));
    primary.handle(Event::Arbiter(Answer::Swapped(Version(2))), ms(0));
    assert_eq!(primary.term(), Term(2));
    primary
}

fn record() -> Versioned {
    let (term, in_sync) = (Term(2), vec![STANDBY]);
    let record = Record { set: SET, term, active: PRIMARY, in_sync };
    Versioned { version: Version(2), record }
}

fn standby() -> Standby {
    let mut standby = Standby::begin((STANDBY, PRIMARY), SET, Settings::default(), 0, ms(0));
    let told = Message::Membership(record(), Commit::Received);
    standby.handle(standby::Event::Message(told), ms(0));
    standby
}

fn from_standby(message: Message) -> Event {
    Event::Message { from: STANDBY, message }
}

fn ack(received: u64, executed: u64) -> Event {
    from_standby(Message::Ack { received, executed, stamp_ns: 0 })
}

fn leaves(actions: &[Action]) -> Option<Lost> {
    actions.iter().find_map(|action| match action {
        Action::Report(News::Leaving { why, .. }) => Some(why.clone()),
        _ => None,
    })
}

fn asks(actions: &[Action]) -> Option<Request> {
    actions.iter().find_map(|action| match action {
        Action::Ask(request) => Some(request.clone()),
        _ => None,
    })
}

/// Runs its deadlines up to a moment.
fn pass(primary: &mut Primary, until: Duration) -> Vec<Action> {
    let mut all = Vec::new();
    while let Some(at) = primary.deadline().filter(|at| *at <= until) {
        let before = primary.deadline();
        all.extend(primary.handle(Event::Tick, at));
        assert_ne!(primary.deadline(), before, "a deadline that is over stays");
    }
    all
}

#[test]
fn a_primary_sends_heartbeats_and_drops_a_standby_that_sends_none() {
    let mut primary = protected(Settings::default());
    let actions = pass(&mut primary, Duration::from_micros(4_999));
    let beat = Message::Heartbeat { term: Term(2), released: 0 };
    assert_eq!(actions, vec![Action::Send { to: STANDBY, message: beat }; 4]);
    let actions = pass(&mut primary, ms(5));
    assert_eq!(leaves(&actions), Some(Lost::Silent));
    let Some(Request::CompareAndSwap { expected: Version(2), new }) = asks(&actions) else {
        panic!("it goes on unasked: {actions:?}");
    };
    assert_eq!((new.term, new.active, &new.in_sync[..]), (Term(3), PRIMARY, &[][..]));
    // Nothing is released while that is open, whatever arrives.
    primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(5));
    assert_eq!(primary.handle(ack(1, 1), ms(5)), []);
    let actions = primary.handle(Event::Arbiter(Answer::Swapped(Version(3))), ms(6));
    let dropped = Action::Send { to: STANDBY, message: Message::Dropped(Term(3)) };
    assert!(actions.contains(&dropped) && actions.contains(&Action::Release(1)), "{actions:?}");
}

#[test]
fn acks_that_waited_for_a_paused_primary_do_not_count() {
    let mut primary = protected(Settings::default());
    primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(0));
    let actions = primary.handle(ack(1, 1), ms(5));
    assert!(!actions.contains(&Action::Release(1)), "{actions:?}");
    assert_eq!(leaves(&actions), Some(Lost::Silent));
}

#[test]
fn a_standby_that_is_too_far_behind_slows_output_down_and_is_dropped_then() {
    let settings = Settings { heartbeat: ms(1000), ..Settings::default() };
    let mut primary = protected(settings);
    primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(10));
    assert_eq!(primary.handle(ack(1, 0), ms(11)), [Action::Release(1)]);
    assert_eq!(pass(&mut primary, ms(59)), []);
    assert_eq!(pass(&mut primary, ms(60)), [Action::SlowDown(true)]);
    // It catches up, and falls behind once more.
    assert_eq!(primary.handle(ack(1, 1), ms(200)), [Action::SlowDown(false)]);
    primary.handle(Event::Appended { last: 2, bytes: 9 }, ms(300));
    assert_eq!(pass(&mut primary, ms(549)), [Action::SlowDown(true)]);
    let actions = pass(&mut primary, ms(550));
    assert_eq!(leaves(&actions), Some(Lost::Lag));
    assert!(asks(&actions).is_some() && actions.contains(&Action::SlowDown(false)));
}

#[test]
fn an_unreachable_arbiter_is_asked_again_and_the_user_told_once() {
    let mut primary = protected(Settings { heartbeat: ms(1000), ..Settings::default() });
    let gone = Event::Disconnected { member: STANDBY, why: "reset".into() };
    assert!(asks(&primary.handle(gone, ms(1))).is_some());
    let silent = || Event::Arbiter(Answer::Unreachable("timeout".into()));
    let told = Action::Report(News::ArbiterUnreachable("timeout".into()));
    assert_eq!(primary.handle(silent(), ms(10)), [told]);
    for at in [30, 60, 90] {
        assert_eq!(primary.deadline(), Some(ms(at)));
        let actions = primary.handle(Event::Tick, ms(at));
        assert!(asks(&actions).is_some(), "{actions:?}");
        assert_eq!(primary.handle(silent(), ms(at + 10)), []);
    }
}

#[test]
fn a_standby_takes_over_from_a_silent_primary_when_it_has_executed_everything() {
    let mut standby = standby();
    let head = RecordsHead { first: 1, last: 2, released: 0, stamp_ns: 7 };
    let records = Message::Records(head, vec![0; 9]);
    standby.handle(standby::Event::Message(records), ms(1));
    standby.handle(standby::Event::Executed(1), ms(2));
    let actions = standby.handle(standby::Event::Tick, ms(6));
    let lost = standby::Action::PrimaryLost(standby::Lost::Silent);
    assert_eq!(actions, [lost, standby::Action::Close]);
    // Records that were on their way count no more.
    let head = RecordsHead { first: 3, last: 3, ..head };
    let more = Message::Records(head, vec![0; 9]);
    assert_eq!(standby.handle(standby::Event::Message(more), ms(6)), []);
    let actions = standby.handle(standby::Event::Executed(2), ms(7));
    let new = record().record.next(STANDBY, []);
    let request = Request::CompareAndSwap { expected: Version(2), new };
    assert_eq!(actions, [standby::Action::Ask(request)]);
    let actions = standby.handle(standby::Event::Arbiter(Answer::Swapped(Version(3))), ms(8));
    assert_eq!(actions, [standby::Action::TakeOver { position: 2, released: 0 }]);
    let (primary, actions) = standby.into_primary(ms(8)).expect("it took over");
    assert_eq!((primary.term(), &actions[..]), (Term(3), &[Action::Release(2)][..]));
}

#[test]
fn a_swap_waits_until_the_standby_has_executed_nearly_all() {
    let mut primary = protected(Settings::default());
    primary.handle(Event::Appended { last: 17, bytes: 99 }, ms(0));
    assert_eq!(primary.handle(Event::Swap { to: STANDBY }, ms(0)), []);
    let actions = primary.handle(ack(17, 1), ms(0));
    assert!(actions.contains(&Action::Release(17)), "{actions:?}");
    let Some(Request::CompareAndSwap { new, .. }) = asks(&actions) else {
        panic!("no swap: {actions:?}");
    };
    assert_eq!((new.active, &new.in_sync[..]), (STANDBY, &[PRIMARY][..]));
    let actions = primary.handle(Event::Arbiter(Answer::Swapped(Version(3))), ms(0));
    assert!(actions.contains(&Action::Stop), "{actions:?}");
    let actions = primary.handle(Event::Stopped, ms(0));
    assert!(matches!(
        actions[..],
        [Action::Send { message: Message::Yours { position: 17, .. }, .. }, Action::HandedOver]
    ));
    assert!(primary.into_standby(ms(0)).is_some_and(|standby| standby.in_sync()));
}

#[test]
fn a_request_without_an_answer_counts_until_the_version_has_changed() {
    let mut primary = protected(Settings { heartbeat: ms(1000), ..Settings::default() });
    let other = MemberId([3; 16]);
    assert!(asks(&primary.handle(Event::Seeded { member: other, base: 0 }, ms(0))).is_some());
    primary.handle(Event::Arbiter(Answer::Unreachable("timeout".into())), ms(0));
    // The one that would have joined is gone, and may be in the record all the same.
    let gone = Event::Disconnected { member: other, why: "reset".into() };
    primary.handle(gone, ms(1));
    primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(1));
    assert_eq!(primary.handle(ack(1, 1), ms(2)), []);
    let actions = primary.handle(Event::Tick, ms(20));
    let Some(Request::CompareAndSwap { new, .. }) = asks(&actions) else {
        panic!("it forgot: {actions:?}");
    };
    assert_eq!(new.in_sync, [STANDBY]);
}

#[test]
fn a_primary_that_lost_is_fenced_and_says_nothing_more() {
    let later = from_standby(Message::Heartbeat { term: Term(3), released: 0 });
    let dropped = from_standby(Message::Dropped(Term(3)));
    for event in [later, dropped] {
        let mut primary = protected(Settings::default());
        primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(0));
        assert_eq!(primary.handle(event, ms(0)), [Action::Fence { term: Term(3) }]);
        assert_eq!(primary.handle(ack(1, 1), ms(0)), []);
        assert_eq!((primary.deadline(), primary.active()), (None, false));
    }
    let mut primary = protected(Settings::default());
    primary.handle(Event::Disconnected { member: STANDBY, why: "reset".into() }, ms(0));
    let record = record().record.next(STANDBY, []);
    let there = Some(Versioned { version: Version(3), record });
    let actions = primary.handle(Event::Arbiter(Answer::Conflict(there)), ms(1));
    assert_eq!(actions, [Action::Fence { term: Term(3) }]);
}

#[test]
fn a_standby_is_told_to_end_when_the_arbiter_has_recorded_the_end_of_protection() {
    let mut primary = protected(Settings::default());
    let actions = primary.handle(Event::Unprotect, ms(0));
    assert!(matches!(actions[..], [Action::Ask(_)]), "{actions:?}");
    let actions = primary.handle(Event::Arbiter(Answer::Swapped(Version(3))), ms(1));
    let goodbye = Action::Send { to: STANDBY, message: Message::Goodbye };
    let unprotected = Action::Report(News::Unprotected);
    assert!(actions.ends_with(&[goodbye, Action::Close(STANDBY), unprotected]), "{actions:?}");
    assert_eq!(primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(2)), [Action::Release(1)]);
    let ended = standby().handle(standby::Event::Message(Message::Goodbye), ms(1));
    assert!(ended.contains(&standby::Action::End(standby::Ended::Goodbye)));
}

#[test]
fn a_standby_that_is_slow_to_take_a_vm_asks_whether_it_still_may() {
    let given = || {
        let mut standby = standby();
        let record = record().record.next(STANDBY, [PRIMARY]);
        let record = Versioned { version: Version(3), record };
        let yours = Message::Yours { position: 0, record };
        let actions = standby.handle(standby::Event::Message(yours), ms(1));
        assert!(matches!(actions[..], [standby::Action::TakeOver { .. }]), "{actions:?}");
        standby
    };
    let silence = Settings::default().heartbeat * Settings::default().misses;
    assert_eq!(given().reconsider(silence), None, "in time");
    let mut late = given();
    let actions = late.reconsider(ms(1) + silence).unwrap();
    let Some(standby::Action::Ask(Request::CompareAndSwap { expected, new })) = actions.last()
    else {
        panic!("{actions:?}")
    };
    assert_eq!((*expected, new.active, &new.in_sync[..]), (Version(3), STANDBY, &[][..]));
    let actions = late.handle(standby::Event::Arbiter(Answer::Swapped(Version(4))), ms(9));
    assert!(matches!(actions[..], [standby::Action::TakeOver { .. }]), "{actions:?}");
    assert_eq!(late.reconsider(ms(100)), None, "the arbiter has said so");
}

#[test]
fn a_diverged_standby_tells_its_primary_and_never_takes_over() {
    let mut standby = standby();
    let head = RecordsHead { first: 1, last: 1, released: 0, stamp_ns: 7 };
    standby.handle(standby::Event::Message(Message::Records(head, vec![0; 9])), ms(1));
    let what = || "another frame".to_owned();
    let diverged = standby::Event::Diverged { position: 1, what: what() };
    let told = Message::Divergence { position: 1, what: what() };
    assert_eq!(standby.handle(diverged, ms(1)), [standby::Action::Send(told.clone())]);
    let ended = standby::Ended::Diverged { position: 1, what: what() };
    let actions = standby.handle(standby::Event::Disconnected("reset".into()), ms(2));
    assert_eq!(actions, [standby::Action::Close, standby::Action::End(ended)]);
    let mut primary = protected(Settings::default());
    let actions = primary.handle(from_standby(told), ms(1));
    assert_eq!(leaves(&actions), Some(Lost::Diverged { position: 1, what: what() }));
    assert!(asks(&actions).is_some());
}

#[test]
fn a_standby_that_the_record_does_not_name_ends() {
    let mut standby = standby();
    let actions = standby.handle(standby::Event::Disconnected("reset".into()), ms(1));
    assert!(matches!(actions.last(), Some(standby::Action::Ask(_))));
    let record = record().record.next(PRIMARY, []);
    let there = Some(Versioned { version: Version(3), record });
    let actions = standby.handle(standby::Event::Arbiter(Answer::Conflict(there)), ms(2));
    let ended = standby::Action::End(standby::Ended::Lost(Term(3)));
    assert_eq!(actions, [standby::Action::Close, ended]);
    assert!(standby.into_primary(ms(2)).is_none());
}

#[test]
fn an_arbiter_without_the_record_lets_nobody_go_on() {
    let mut standby = standby();
    standby.handle(standby::Event::Disconnected("reset".into()), ms(1));
    let actions = standby.handle(standby::Event::Arbiter(Answer::Conflict(None)), ms(2));
    assert!(matches!(actions[..], [standby::Action::ArbiterUnreachable(_)]), "{actions:?}");
    let mut primary = protected(Settings::default());
    primary.handle(Event::Disconnected { member: STANDBY, why: "reset".into() }, ms(1));
    primary.handle(Event::Appended { last: 1, bytes: 9 }, ms(1));
    let actions = primary.handle(Event::Arbiter(Answer::Conflict(None)), ms(2));
    assert!(matches!(actions[..], [Action::Report(News::ArbiterUnreachable(_))]), "{actions:?}");
}

#[test]
fn a_standby_that_was_in_the_set_needs_another_process() {
    let mut primary = protected(Settings::default());
    let actions = primary.handle(Event::Seeded { member: STANDBY, base: 0 }, ms(0));
    assert!(matches!(actions[..], [Action::Report(News::NotAccepted { .. })]), "{actions:?}");
}
