//! Every verb in every state of a VM: tests the table of `docs/verbs.md`, cell by cell, with real
//! processes.

mod bed;
mod outcomes;
mod table;

use bed::{Bed, State};
use table::{Cell, cells};

/// Walks a row of the table.
#[track_caller]
fn walk(state: State) {
    let Some(bed) = Bed::new(&format!("verbs while {}", state.name())) else { return };
    let row = cells(state.name());
    assert!(row.len() >= 10, "docs/verbs.md lacks cells for {}", state.name());
    for Cell { verb, answer, after } in row {
        bed.check(state, &verb, &answer, &after);
    }
}

macro_rules! rows {
    ($($test:ident: $state:expr,)*) => {
        $(#[test]
        fn $test() {
            walk($state);
        })*

        #[test]
        fn every_row_of_the_table_is_walked() {
            let mut walked: Vec<_> = [$($state),*].map(State::name).to_vec();
            let mut rows = table::rows();
            walked.sort_unstable();
            rows.sort_unstable();
            assert_eq!(walked, rows);
        }
    };
}

rows! {
    verbs_while_booting: State::Booting,
    verbs_while_running: State::Running,
    verbs_while_paused: State::Paused,
    verbs_while_quiescing: State::Quiescing,
    verbs_while_moving: State::Moving,
    verbs_while_switching: State::Switching,
    verbs_once_handed_over: State::HandedOver,
    verbs_while_loading: State::Loading,
    verbs_while_saving: State::Saving,
    verbs_while_forking: State::Forking,
    verbs_while_reverting: State::Reverting,
    verbs_while_restoring: State::Restoring,
    verbs_once_ended: State::Ended,
}
