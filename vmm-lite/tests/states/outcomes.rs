//! What the table has no cell for: a destination that is gone, or is stopped; a source that is ended by force; verbs that race.

use super::bed::{Bed, State};
use std::{sync::Barrier, thread};
use vmm_lite_lab::vmm::PATIENCE;

#[test]
fn a_vm_whose_destination_is_dead_goes_on_where_it_was_on_an_operators_word_only() {
    let Some(bed) = Bed::new("a destination that is dead") else { return };
    let mut scene = bed.unreachable();
    for verb in ["resume", "pause", "stop"] {
        let said = bed.refused(&[verb, "d"]);
        assert!(said.contains("was handed to"), "{verb}: {said}");
    }
    let saved = bed.refused(&["snapshot", "d", bed.file("not.snap").as_str()]);
    assert!(saved.contains("being moved"), "{saved}");
    bed.json(&["resume", "d", "--i-know-it-runs-nowhere-else", "--json"]);
    assert!(!scene.operation_ends(), "the move was not made");
    bed.runs_on(&mut scene);
    let stats = bed.json(&["stats", "d", "--json"]);
    assert_eq!((&stats["vouched_for"], &stats["handed_to"]), (&true.into(), &().into()));
    bed.json(&["snapshot", "d", &bed.file("saved.snap"), "--json"]);
    // And wherever it moves.
    assert_eq!(bed.moved_once_more(scene)["vouched_for"], true);
}

#[test]
fn an_operators_word_does_not_count_against_the_destinations() {
    let Some(bed) = Bed::new("a destination that answers") else { return };
    let mut scene = bed.bring(State::HandedOver);
    let said = bed.refused(&["resume", "d", "--i-know-it-runs-nowhere-else"]);
    assert!(said.contains("the other host answers") || said.contains("has ended"), "{said}");
    bed.check_after("an operator's word", "runs there", &mut scene);
    drop(scene);
    let mut scene = bed.bring(State::Running);
    let said = bed.refused(&["resume", "d", "--i-know-it-runs-nowhere-else"]);
    assert!(said.contains("was not handed to another host"), "{said}");
    bed.check_after("an operator's word", "runs", &mut scene);
}

#[test]
fn a_source_is_told_that_its_destination_was_stopped_while_memory_followed() {
    let Some(bed) = Bed::new("a destination that is stopped") else { return };
    let mut scene = bed.bring(State::HandedOver);
    bed.stop_there();
    assert!(scene.operation_ends(), "it had moved");
    let status = scene.vm.wait(PATIENCE).unwrap();
    assert!(status.success(), "{}", scene.vm.output());
}

#[test]
fn a_source_that_is_ended_by_force_says_that_the_move_was_not_whole() {
    let Some(bed) = Bed::new("a source that is ended by force") else { return };
    let mut scene = bed.bring(State::HandedOver);
    bed.json(&["stop", "d", "--force", "--json"]);
    assert!(!scene.operation_ends(), "nobody can say that it arrived");
    let said = scene.operation.as_ref().unwrap().output();
    assert!(said.contains("ended here by force") && said.contains(r#""event":"failed""#), "{said}");
}

#[test]
fn verbs_that_race_all_come_to_an_end() {
    const ROUNDS: usize = 200;
    let Some(bed) = Bed::new("verbs that race") else { return };
    let mut scene = bed.bring(State::Running);
    let together = Barrier::new(3);
    thread::scope(|scope| {
        for verb in ["pause", "resume", "pause"] {
            let (bed, together) = (&bed, &together);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    together.wait();
                    // Each is answered, one way or the other.
                    bed.ask(&format!(r#"{{"verb":"{verb}"}}"#));
                }
            });
        }
    });
    bed.ask(r#"{"verb":"resume"}"#);
    bed.check_after("races", "runs", &mut scene);
}
