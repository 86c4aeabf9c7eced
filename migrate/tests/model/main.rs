//! Explores both state machines and the network between them exhaustively within bounds. See
//! `docs/checking.md`.
//!
//! The state machines are `migrate`'s own; [`source`] and [`receiver`] do for them what vmm-lite's
//! drivers do. [`steps`] lists what can happen, [`properties`] what must hold, [`mutation`] the
//! wrong variants that the checker must detect.

mod link;
mod mutation;
mod onward;
mod properties;
mod receiver;
mod source;
mod steps;
mod world;

use std::{io::Write, time::Instant};

use migrate::source::Mode;
use mutation::Mutation;
use onward::{Gate, Hops};
use properties::{ANSWERS, BACK, FENCE, KEPT, ONE, WHOLE, WORD};
use stateright::{Checker, HasDiscoveries, Model};
use world::{Bounds, Harsh, Moves, Reach};

/// One attempt over TCP, and everything that can go wrong with it.
const TCP: Bounds = Bounds {
    tries: 1,
    questions: 2,
    writes: 2,
    restarts: 1,
    source_dies: true,
    failures: true,
    page_hints: true,
    mode: Mode::PreCopy,
    together: false,
    breaks: true,
    harsh: Harsh::NONE,
};

/// The same, with the commit sent together with the state.
const TOGETHER: Bounds = Bounds { together: true, ..TCP };

/// One attempt over TCP with post-copy.
const FOLLOW: Bounds = Bounds { mode: Mode::Hybrid, page_hints: false, ..TCP };

/// Two attempts over a network that loses single packets, and repeats others at any time and place.
const HARSH: Bounds = Bounds {
    tries: 2,
    questions: 2,
    writes: 0,
    restarts: 0,
    source_dies: false,
    failures: false,
    page_hints: false,
    mode: Mode::PreCopy,
    together: false,
    breaks: true,
    harsh: Harsh { losses: 1, copies: 1, reach: Reach::AnyConnection },
};

/// Prints how far the checker looked, past the test runner's capture: a model that has become small
/// must be noticed.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "model: {what}");
}

fn holds(what: &str, bounds: Bounds) {
    let began = Instant::now();
    let model = Moves { bounds, mutation: Mutation::None };
    let checker = model.checker().threads(2).spawn_bfs().join();
    say(format_args!(
        "{what}: {} states and {} steps, which is all there are; depth {}; {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32(),
    ));
    checker.assert_properties();
}

#[test]
fn one_try_over_tcp() {
    holds("one try over TCP", TCP);
}

#[test]
fn one_try_over_tcp_whose_commit_goes_with_the_state() {
    holds("one try over TCP, commit with the state", TOGETHER);
}

#[test]
fn two_tries_over_tcp_whose_commits_go_with_the_state() {
    let bounds = Bounds { tries: 2, writes: 1, page_hints: false, ..TOGETHER };
    holds("two tries over TCP, commit with the state", bounds);
}

#[test]
fn two_tries_over_tcp() {
    holds("two tries over TCP", Bounds { tries: 2, writes: 1, page_hints: false, ..TCP });
}

/// Twice as much of everything: a minute or more.
#[test]
#[ignore = "wide: takes minutes"]
fn two_tries_over_tcp_wide() {
    holds("two tries over TCP, wide", Bounds { tries: 2, ..TCP });
}

#[test]
fn three_tries_over_tcp() {
    holds(
        "three tries over TCP",
        Bounds { tries: 3, writes: 0, page_hints: false, source_dies: false, ..TCP },
    );
}

#[test]
fn post_copy_over_tcp() {
    holds("pages that follow, over TCP", FOLLOW);
}

#[test]
fn post_copy_after_a_commit_that_goes_with_the_state() {
    holds("pages that follow, commit with the state", Bounds { together: true, ..FOLLOW });
}

#[test]
fn a_network_that_repeats_and_loses_packets_of_a_commit_with_the_state() {
    holds("two tries, harsh network, commit with the state", Bounds { together: true, ..HARSH });
}

#[test]
fn a_network_that_repeats_and_loses_packets() {
    holds("two tries, harsh network", HARSH);
}

#[test]
fn a_network_that_repeats_and_loses_more_packets() {
    let harsh = Harsh { losses: 2, copies: 2, reach: Reach::AnyConnection };
    holds("one try, harsher network", Bounds { tries: 1, restarts: 1, harsh, ..HARSH });
}

/// A move with post-copy, and a second one that is requested meanwhile.
const HOPS: Hops = {
    let few = Bounds { restarts: 0, failures: false, page_hints: false, ..TOGETHER };
    let few = Bounds { questions: 1, source_dies: false, ..few };
    let first = Bounds { mode: Mode::Hybrid, writes: 1, restarts: 1, ..few };
    let second = Bounds { questions: 0, writes: 0, ..few };
    Hops {
        first: Moves { bounds: first, mutation: Mutation::None },
        second: Moves { bounds: second, mutation: Mutation::None },
        gate: Gate::Waits,
    }
};

#[test]
fn a_second_move_during_post_copy() {
    let began = Instant::now();
    let checker = HOPS.checker().threads(2).spawn_bfs().join();
    say(format_args!(
        "a second move during post-copy: {} states and {} steps, which is all there are; \
         depth {}; {:.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f32(),
    ));
    checker.assert_properties();
}

/// Checks that a wrong variant is detected, within bounds in which that takes a few seconds at
/// most.
fn found_onward(what: &str, hops: Hops, property: &'static str) {
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = hops.checker().finish_when(until).spawn_bfs().join();
    let states = checker.unique_state_count();
    let path = checker.discovery(property);
    let path = path.unwrap_or_else(|| panic!("{what}: not found among {states} states"));
    let hops = path.into_actions();
    say(format_args!("{what}: found after {states} states, in {} steps", hops.len()));
    println!("{what} breaks \"{property}\": {hops:?}");
}

/// A gate that does not wait, over connections that do not break.
fn open_gate() -> Hops {
    let mut hops = Hops { gate: Gate::Open, ..HOPS };
    hops.first.bounds = Bounds { restarts: 0, questions: 0, breaks: false, ..hops.first.bounds };
    hops.second.bounds.breaks = false;
    hops
}

#[test]
fn a_second_move_that_does_not_wait_for_pages_is_found() {
    found_onward("a second move that does not wait", open_gate(), onward::WHOLE);
}

#[test]
fn the_last_good_copy_dropped_for_a_second_move_that_does_not_wait_is_found() {
    found_onward("the last good copy dropped", open_gate(), onward::KEPT);
}

/// B's process has died, another answers in its place, and the VM runs at C.
#[test]
fn a_first_source_that_takes_unknown_for_never_after_a_second_move_is_found() {
    let mut hops = HOPS;
    hops.first.mutation = Mutation::TakesUnknownForNever;
    hops.second.bounds.breaks = false;
    found_onward("a first source that takes unknown for never", hops, onward::ONE);
}

/// Checks that the checker detects the mutation as a violation of this property.
fn found(mutation: Mutation, bounds: Bounds, property: &'static str) {
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = Moves { bounds, mutation }.checker().finish_when(until).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property) else {
        panic!("{mutation:?} was not found among {states} states");
    };
    let steps = path.into_actions();
    say(format_args!("{mutation:?} found after {states} states, in {} steps", steps.len()));
    println!("{mutation:?} breaks \"{property}\": {steps:?}");
}

/// A wrong variant is detected. The right state machines pass within the same bounds in the tests
/// above, whose bounds are wider.
macro_rules! found {
    ($($test:ident: $mutation:ident, $bounds:expr => $property:expr;)*) => {
        $(#[test]
        fn $test() {
            found(Mutation::$mutation, $bounds, $property);
        })*
    };
}

found! {
    a_source_that_resumes_in_silence_is_found: ResumesWhenSilent, TCP => ONE;
    a_source_that_resumes_when_the_link_breaks_is_found: ResumesWhenLinkBreaks, TCP => ONE;
    a_source_that_resumes_when_cancelled_is_found: ResumesWhenCancelled, TCP => ONE;
    a_source_that_takes_unknown_for_never_is_found: TakesUnknownForNever, TCP => WORD;
    a_commit_without_a_fence_is_found: CommitsUnfenced, TCP => FENCE;
    a_commit_with_the_state_and_without_a_fence_is_found: CommitsUnfenced, TOGETHER => FENCE;
    a_source_that_resumes_in_silence_after_a_commit_with_the_state_is_found: ResumesWhenSilent,
        TOGETHER => ONE;
    a_state_that_runs_though_it_was_not_applied_is_found: RunsUnapplied, TOGETHER => WHOLE;
    two_run_without_a_fence: CommitsUnfenced, TCP => ONE;
    a_guest_left_stopped_is_found: StaysStopped, TCP => BACK;
    a_dirty_page_left_behind_is_found: LosesADirtyPage, TCP => WHOLE;
    a_destination_that_does_not_wait_for_the_commit_is_found: RunsWithoutCommit, TCP => ONE;
    a_destination_that_forgets_that_it_ran_is_found: ForgetsThatItRan, TCP => ONE;
    a_destination_that_answers_before_it_has_ended_the_attempt_is_found: AnswersTooSoon, TCP => ONE;
    an_answer_too_soon_contradicts_itself: AnswersTooSoon, TCP => ANSWERS;
    a_process_that_answers_for_another_is_found: AnswersForAnother, TCP => WORD;
    memory_dropped_too_soon_is_found: LetsGoTooSoon, FOLLOW => KEPT;
    an_answer_that_forgets_what_is_missing_is_found: SaysThatItRanWhileItLacks, FOLLOW => KEPT;
    a_source_that_takes_any_outcome_is_found: TakesAnyOutcome, Bounds { harsh: Harsh { losses: 0,
        ..HARSH.harsh }, ..HARSH } => ONE;
    a_destination_that_takes_any_commit_is_found: TakesAnyCommit, HARSH => ONE;
}
