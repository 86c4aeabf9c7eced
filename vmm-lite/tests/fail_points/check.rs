//! What must hold after a failure: exactly one VM runs, or none where its only host died; and
//! everything that a client was told is true.

use crate::{
    fixture::{Attempt, Fixture},
    table::{
        Case,
        Side::{Destination, Source},
        When,
    },
};
use vmm::fail_point::Action;
use vmm_lite_lab::vmm::TIMEOUT;

/// The messages of a destination that cancels a move: of one that had begun, and of one that never
/// did.
const GIVES_UP: [&str; 2] = ["did not arrive", "came to nothing"];
/// The message of a source that does not know the outcome.
const ASKS: &str = "asking tcp://";

/// Runs one case.
pub fn check(fixture: &Fixture, case: Case) {
    let attempt = Attempt::begin(fixture, case);
    match (case.action, case.row.side) {
        (Action::Kill, Source) => source_dies(attempt),
        (Action::Kill, Destination) => destination_dies(attempt),
        (Action::Stop, Source) => source_freezes(attempt),
        (Action::Stop, Destination) => destination_freezes(attempt),
        (Action::Cut | Action::Error, _) => settles(attempt),
        (Action::Hold, _) => unreachable!("not one of a row's actions"),
    }
}

/// No process died: the verb reports the truth, and one VM runs.
fn settles(mut attempt: Attempt<'_>) {
    attempt.until("the verb ends", |this| this.moved().is_some());
    let case = attempt.case;
    if attempt.moved() == Some(true) {
        assert_ne!(case.row.when, When::Before, "{case}: moved without a commit");
        attempt.has_moved();
    } else {
        attempt.lives(Source);
        attempt.tries_again();
    }
}

fn source_dies(mut attempt: Attempt<'_>) {
    attempt.source.wait(TIMEOUT).unwrap();
    let case = attempt.case;
    if case.row.when == When::Before {
        attempt.says(Destination, 1, &GIVES_UP);
        assert!(!attempt.runs(Destination), "{case}: it runs\n{}", attempt.said());
        assert!(attempt.destination.is_running(), "{case}: {}", attempt.said());
    } else if case.is_lost() {
        is_mourned(&mut attempt);
    } else {
        attempt.lives(Destination);
    }
}

/// The source is away for longer than the destination waits for its memory, which ends the VM.
fn is_mourned(attempt: &mut Attempt<'_>) {
    let status = attempt.destination.wait(TIMEOUT).unwrap();
    let said = attempt.destination.output();
    assert_eq!(status.code(), Some(125), "{}: {said}", attempt.case);
    assert!(said.contains("the VM is lost"), "{}: {said}", attempt.case);
}

fn destination_dies(mut attempt: Attempt<'_>) {
    attempt.destination.wait(TIMEOUT).unwrap();
    let case = attempt.case;
    attempt.until("the verb ends, or the source asks", |this| {
        this.moved().is_some() || this.source.output().contains(ASKS)
    });
    if attempt.source.output().contains(ASKS) {
        assert_ne!(case.row.when, When::Before, "{case}\n{}", attempt.said());
        attempt.cannot_run_here();
    } else {
        assert_ne!(case.row.when, When::After, "{case}\n{}", attempt.said());
        attempt.lives(Source);
        attempt.tries_again();
    }
}

/// For longer than the destination's timeout.
fn source_freezes(mut attempt: Attempt<'_>) {
    attempt.freezes();
    let case = attempt.case;
    if case.row.when == When::Before {
        attempt.says(Destination, 1, &GIVES_UP);
        attempt.thaw();
        settles(attempt);
    } else if case.is_lost() {
        is_mourned(&mut attempt);
        attempt.thaw();
        attempt.says(Source, 1, &[ASKS]);
        attempt.cannot_run_here();
    } else {
        attempt.lives(Destination);
        attempt.thaw();
        settles(attempt);
    }
}

/// For longer than the source's timeout.
fn destination_freezes(mut attempt: Attempt<'_>) {
    attempt.freezes();
    // One that was queried already is queried again.
    let asked = attempt.source.output().matches(ASKS).count();
    attempt.until("the source times out", |this| {
        this.moved().is_some() || this.source.output().matches(ASKS).count() > asked
    });
    let case = attempt.case;
    match attempt.moved() {
        Some(true) => {
            // The destination was not queried any more.
            assert_eq!(case.row.when, When::After, "{case}\n{}", attempt.said());
            attempt.thaw();
            attempt.has_moved();
        }
        Some(false) => {
            assert_ne!(case.row.when, When::After, "{case}\n{}", attempt.said());
            attempt.lives(Source);
            attempt.goes_elsewhere();
        }
        None => {
            assert_ne!(case.row.when, When::Before, "{case}\n{}", attempt.said());
            assert!(!attempt.runs(Source), "{case}: it runs\n{}", attempt.said());
            attempt.thaw();
            settles(attempt);
        }
    }
}
