//! Cases without a cell in the table: a destination that is dead, or is stopped; a source that is
//! ended by force; verbs that race.

use super::bed::{Bed, State, held};
use nix::sys::signal::Signal;
use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

/// How long to watch that a process does not end.
const LOOK: Duration = Duration::from_secs(1);

/// Checks that a process does not end before it may continue.
#[track_caller]
fn does_not_end(process: &mut Process) {
    let end = Instant::now() + LOOK;
    while Instant::now() < end {
        assert!(process.is_running(), "it has ended: {}", process.output());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_vm_whose_destination_is_dead_resumes_at_the_source_only_by_operator_override() {
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
    // And on every host that it moves to.
    assert_eq!(bed.moved_once_more(scene)["vouched_for"], true);
}

#[test]
fn an_operator_override_does_not_overrule_the_destinations_answer() {
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

/// Where the destination can be queried, and has not been since, however long ago the link was
/// lost.
#[test]
fn a_destination_is_asked_once_more_before_an_operator_override_counts() {
    let Some(bed) = Bed::new("a destination that can be asked again") else { return };
    let mut scene = bed.cut_off("source.asking=hold");
    held(&scene.vm, "source.asking");
    let mut resume = bed.verb(&["resume", "d", "--i-know-it-runs-nowhere-else"]);
    resume.wait_for_line("waiting for the other host", TIMEOUT).unwrap();
    // A query that is already under way fails.
    scene.vm.signal(Signal::SIGCONT).unwrap();
    let status = resume.wait(TIMEOUT).unwrap();
    let said = resume.output();
    assert!(!status.success(), "two of it run: {said}");
    assert!(said.contains("the other host answers") || said.contains("has ended"), "{said}");
    bed.check_after("an operator's word", "runs there", &mut scene);
}

#[test]
fn a_source_is_told_that_its_destination_was_stopped_during_post_copy() {
    let Some(bed) = Bed::new("a destination that is stopped") else { return };
    let mut scene = bed.bring(State::HandedOver);
    bed.stop_there();
    assert!(scene.operation_ends(), "it had moved");
    let status = scene.vm.wait(TIMEOUT).unwrap();
    assert!(status.success(), "{}", scene.vm.output());
}

/// However long the thread that tells it takes.
#[test]
fn a_destination_that_is_stopped_does_not_end_before_its_source_is_told() {
    let Some(bed) = Bed::new("a destination that takes its time to end") else { return };
    let mut scene = bed.handed_over("destination.vm-ended=hold");
    let mut stop = bed.stops_there();
    held(&scene.destination, "destination.vm-ended");
    does_not_end(&mut scene.destination);
    scene.destination.signal(Signal::SIGCONT).unwrap();
    assert!(stop.wait(TIMEOUT).unwrap().success(), "{}", stop.output());
    assert!(scene.operation_ends(), "it had moved");
    assert!(scene.vm.wait(TIMEOUT).unwrap().success(), "{}", scene.vm.output());
}

#[test]
fn a_move_that_cannot_begin_as_the_vm_ends_says_so() {
    let Some(bed) = Bed::new("the end of a VM that is about to move") else { return };
    let mut scene = bed.bring(State::Running);
    // There is no such host.
    let mut migrate = bed.verb(&["migrate", "d", "tcp://10.9.0.99:7000", "--plaintext", "--json"]);
    migrate.wait_for_line("connecting", TIMEOUT).unwrap();
    bed.json(&["stop", "d", "--json"]);
    assert!(!migrate.wait(TIMEOUT).unwrap().success());
    let said = migrate.output();
    assert!(said.contains(r#""event":"failed""#) && said.contains("the VM has ended"), "{said}");
    scene.vm.wait(TIMEOUT).unwrap();
}

/// When a verb that ends the VM here returns, the VM's resources are free for the next one.
#[test]
fn migrate_and_stop_return_when_the_vms_process_is_gone() {
    let Some(bed) = Bed::new("names of VMs that are gone") else { return };
    let mut vm = bed.failing("source.moved=hold");
    let there = bed.receives();
    let mut migrate = bed.verb(&["migrate", "d", &bed.there(), "--plaintext", "--json"]);
    held(&vm, "source.moved");
    does_not_end(&mut migrate);
    vm.signal(Signal::SIGCONT).unwrap();
    assert!(migrate.wait(TIMEOUT).unwrap().success(), "{}", migrate.output());
    assert!(bed.name_is_free(), "after migrate");
    drop((vm.wait(TIMEOUT).unwrap(), there));

    // Its process waits for a held request, as long as it waits for any.
    let mut vm = bed.failing("copy.begun=hold");
    let file = bed.file("held.snap");
    let snapshot = bed.verb(&["snapshot", "d", &file]);
    held(&vm, "copy.begun");
    bed.json(&["stop", "d", "--json"]);
    assert!(bed.name_is_free(), "after stop");
    vm.wait(TIMEOUT).unwrap();
    drop(snapshot);
}

#[test]
fn a_source_ended_by_force_reports_that_the_move_was_incomplete() {
    let Some(bed) = Bed::new("a source that is ended by force") else { return };
    let mut scene = bed.bring(State::HandedOver);
    bed.json(&["stop", "d", "--force", "--json"]);
    assert!(!scene.operation_ends(), "its arrival is unknown");
    let said = scene.operation.as_ref().unwrap().output();
    assert!(said.contains("ended here by force") && said.contains(r#""event":"failed""#), "{said}");
}

#[test]
fn verbs_that_race_all_come_to_an_end() {
    const ROUNDS: usize = 200;
    let Some(bed) = Bed::new("verbs that race") else { return };
    let mut scene = bed.bring(State::Running);
    let (together, silent) = (Barrier::new(3), AtomicBool::new(false));
    thread::scope(|scope| {
        for verb in ["pause", "resume", "pause"] {
            let (bed, together, silent) = (&bed, &together, &silent);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    together.wait();
                    // Each is answered in some way. If one is not, no thread requests any more, but
                    // none abandons the others.
                    if !silent.load(SeqCst) && bed.try_ask(&verb_request(verb)).is_none() {
                        silent.store(true, SeqCst);
                    }
                }
            });
        }
    });
    assert!(!silent.into_inner(), "a verb was not answered: {}", scene.vm.output());
    bed.ask(&verb_request("resume"));
    bed.check_after("races", "runs", &mut scene);
}

fn verb_request(verb: &str) -> String {
    format!(r#"{{"verb":"{verb}"}}"#)
}
