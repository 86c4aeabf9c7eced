//! Explores the state machines of a replica set, the arbiter and the network between them
//! exhaustively within bounds. See `REPLICATION.md`.
//!
//! The state machines are `migrate`'s own; [`drivers`] do for them what vmm-lite's drivers do.
//! [`steps`] lists what can happen, [`properties`] what must hold, [`mutation`] the wrong variants
//! that the checker must detect.

mod drivers;
mod link;
mod mutation;
mod observer;
mod properties;
mod steps;
mod world;

use std::{io::Write, time::Instant};

use migrate::replication::Commit;
use mutation::Mutation;
use properties::{AHEAD, LOST, PROGRESS, TERM, TWO, WHOLE, WRONG};
use stateright::{Checker, HasDiscoveries, Model};
use world::{Bounds, Sets};

/// A primary with one standby, and one fault of any kind.
const PAIR: Bounds = Bounds {
    standbys: 1,
    joins: 0,
    records: 2,
    swaps: 0,
    unprotect: false,
    commit: Commit::Received,
    lag: false,
    faults: 1,
    deaths: true,
    cuts: true,
    alarms: true,
    silence: true,
    divergence: true,
    alone_without_arbiter: false,
};

/// The same with a swap, and one fault more.
const SWAP: Bounds = Bounds { swaps: 1, faults: 2, ..PAIR };

/// A primary that output waits for until its standby has executed it.
const EXECUTED: Bounds = Bounds { commit: Commit::Executed, ..PAIR };

/// A primary alone, which a standby joins.
const JOIN: Bounds = Bounds { standbys: 0, joins: 1, faults: 2, ..PAIR };

/// A primary with two standbys.
const TWO_STANDBYS: Bounds = Bounds { standbys: 2, ..PAIR };

/// Prints how far the checker looked, past the test runner's capture: a model that has become small
/// must be noticed.
fn say(what: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "replication model: {what}");
}

fn holds(what: &str, bounds: Bounds) {
    let began = Instant::now();
    let model = Sets { bounds, mutation: Mutation::None };
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
fn a_pair() {
    holds("a pair, three faults", Bounds { faults: 3, ..PAIR });
}

#[test]
fn a_pair_that_commits_when_executed() {
    let bounds = Bounds { commit: Commit::Executed, faults: 2, records: 3, ..PAIR };
    holds("a pair that commits when executed, two faults", bounds);
}

#[test]
fn a_pair_that_swaps() {
    holds("a pair, two swaps, one fault", Bounds { swaps: 2, ..PAIR });
}

#[test]
fn a_pair_that_swaps_with_two_faults() {
    holds("a pair, one swap, two faults", SWAP);
}

#[test]
fn a_standby_that_is_too_slow() {
    holds("a pair with a slow standby, two faults", Bounds { lag: true, faults: 2, ..PAIR });
}

#[test]
fn a_vm_that_is_protected_no_longer() {
    let bounds = Bounds { unprotect: true, swaps: 1, faults: 1, ..PAIR };
    holds("a pair, a swap, and the end of protection, one fault", bounds);
}

#[test]
fn a_standby_that_joins() {
    holds("a standby joins, two faults", JOIN);
}

#[test]
fn a_standby_that_joins_after_a_takeover() {
    let bounds = Bounds { joins: 1, ..PAIR };
    holds("a pair that another standby joins, one fault", bounds);
}

#[test]
fn two_standbys() {
    holds("two standbys, one fault", TWO_STANDBYS);
}

#[test]
fn two_standbys_and_a_swap() {
    let bounds = Bounds { swaps: 1, silence: false, divergence: false, ..TWO_STANDBYS };
    let bounds = Bounds { alarms: false, ..bounds };
    holds("two standbys, one swap, one fault", bounds);
}

/// Wider bounds: minutes.
#[test]
#[ignore = "wide: takes minutes"]
fn a_standby_that_joins_after_a_takeover_wide() {
    let bounds = Bounds { joins: 1, faults: 2, silence: false, divergence: false, ..PAIR };
    holds("a pair that another standby joins, two faults", bounds);
}

/// Wider bounds: minutes.
#[test]
#[ignore = "wide: takes minutes"]
fn two_standbys_wide() {
    holds("two standbys, two faults", Bounds { faults: 2, ..TWO_STANDBYS });
}

/// Wider bounds: minutes.
#[test]
#[ignore = "wide: takes minutes"]
fn two_standbys_and_a_swap_wide() {
    holds("two standbys, one swap, one fault", Bounds { swaps: 1, ..TWO_STANDBYS });
}

/// Wider bounds: minutes.
#[test]
#[ignore = "wide: takes minutes"]
fn a_pair_that_swaps_wide() {
    let bounds = Bounds { swaps: 2, faults: 2, records: 3, ..PAIR };
    holds("a pair, two swaps, two faults", bounds);
}

/// What a user may choose, and what it costs: see
/// [`alone_without_arbiter`](migrate::replication::Settings::alone_without_arbiter).
#[test]
fn going_on_without_the_arbiter_is_dangerous() {
    let bounds = Bounds { alone_without_arbiter: true, faults: 3, ..PAIR };
    found(Mutation::None, bounds, TWO);
}

fn found(mutation: Mutation, bounds: Bounds, property: &'static str) {
    let until = HasDiscoveries::AnyOf([property].into());
    let checker = Sets { bounds, mutation }.checker().finish_when(until).spawn_bfs().join();
    let states = checker.unique_state_count();
    let Some(path) = checker.discovery(property) else {
        let others: Vec<_> = checker.discoveries().into_keys().collect();
        panic!("{mutation:?} was not found among {states} states, but {others:?}");
    };
    let steps = path.into_actions();
    say(format_args!("{mutation:?} found after {states} states, in {} steps", steps.len()));
    println!("{mutation:?} breaks \"{property}\": {steps:?}");
}

/// A wrong variant is detected. The right state machines pass within the same bounds in the tests
/// above, or within wider ones.
macro_rules! found {
    ($($test:ident: $mutation:ident, $bounds:expr => $property:expr;)*) => {
        $(#[test]
        fn $test() {
            found(Mutation::$mutation, $bounds, $property);
        })*
    };
}

found! {
    output_that_does_not_wait_is_found: ReleasesAtOnce, PAIR => AHEAD;
    an_ack_of_what_is_not_executed_is_found: AcksUnexecuted, EXECUTED => AHEAD;
    a_takeover_before_all_is_executed_is_found: SkipsUnexecuted, PAIR => WHOLE;
    an_ack_after_the_primary_was_given_up_is_found: AcksAfterSuspicion, PAIR => AHEAD;
    a_primary_that_goes_on_unasked_is_found: GoesOnUnasked, PAIR => AHEAD;
    two_release_where_a_primary_goes_on_unasked: GoesOnUnasked, PAIR => TWO;
    a_slow_standby_dropped_unasked_is_found: GoesOnUnasked, Bounds { lag: true, alarms: false,
        silence: false, cuts: false, divergence: false, faults: 0, ..PAIR } => AHEAD;
    a_standby_that_takes_over_unasked_is_found: TakesOverUnasked, PAIR => TERM;
    two_release_where_a_standby_takes_over_unasked: TakesOverUnasked, PAIR => TWO;
    a_primary_that_resumes_unasked_after_a_swap_is_found: TakesOverUnasked, SWAP => TWO;
    a_lost_swap_taken_for_won_is_found: TakesConflictForWon, PAIR => TWO;
    silence_taken_for_won_is_found: TakesSilenceForWon, Bounds { faults: 2, ..PAIR } => TWO;
    silence_taken_for_lost_is_found: TakesSilenceForLost, Bounds { faults: 1, lag: true,
        ..PAIR } => PROGRESS;
    a_swap_that_comes_late_is_found: ForgetsLateSwap, JOIN => AHEAD;
    an_arbiter_that_does_not_compare_is_found: BlindArbiter, PAIR => TERM;
    a_standby_that_gives_up_too_soon_is_found: GivesUpOnConflict, SWAP => PROGRESS;
    a_member_that_ignores_its_fence_is_found: IgnoresTheFence, PAIR => TWO;
    a_standby_recorded_before_it_has_everything_is_found: JoinsTooEarly, JOIN => AHEAD;
    output_that_does_not_wait_for_one_that_joins_is_found: IgnoresTheOneThatJoins, JOIN => AHEAD;
    a_vm_given_before_it_is_recorded_is_found: GivesUnrecorded, SWAP => TERM;
    output_after_a_swap_that_does_not_wait_is_found: IgnoresTheOneBefore, SWAP => AHEAD;
    held_output_that_is_dropped_is_found: DropsHeldOutput, PAIR => LOST;
    a_divergence_that_is_hidden_is_found: HidesDivergence, Bounds { faults: 2, ..PAIR } => WRONG;
}
