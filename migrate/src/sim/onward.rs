//! A second hop, requested during the first hop's post-copy: both moves take place side by side.

use super::{STEPS_MAX, World, ways};
use crate::{
    sim::{
        guest::{Guest, PAGES},
        link::Cut,
    },
    source::Mode,
};

/// The end of a VM's way from A to B and on to C.
struct End {
    /// The VM runs at C, otherwise at B.
    at_c: bool,
    /// Pages that differ from what the guest had at A.
    wrong: usize,
    /// Messages of the second move.
    messages: usize,
}

/// Moves a VM from A to B and on to C, with these cuts of the links. With `gate` the second move
/// waits until B has all memory; without it the move begins as soon as the VM runs at B. `None` if
/// there was no post-copy.
fn moved_on((mode, together): (Mode, bool), cuts: [&[Cut]; 2], gate: bool) -> Option<End> {
    let mut first = World::new(Guest::busy(1), mode, together, cuts[0]);
    let (mut asked, mut second) = (false, None::<World>);
    let mut at_c = false;
    let mut steps = 0..STEPS_MAX;
    loop {
        assert!(steps.next().is_some(), "the moves do not end");
        let mut busy = first.step();
        asked |= first.lacks();
        if let Some(second) = &mut second {
            busy |= second.step();
            let at_c_now = second.destination_runs();
            let running = [first.source_runs(), second.source_runs(), at_c_now];
            assert!(running.iter().filter(|runs| **runs).count() <= 1, "two run: {running:?}");
            if at_c_now && !at_c {
                at_c = true;
                first.leaves();
                busy = true;
            }
        } else if let (true, Some((there, _))) =
            (asked && (first.complete() || !gate), first.memories())
        {
            let guest = Guest::idle(there.to_vec());
            second = Some(World::new(guest, Mode::PreCopy, together, cuts[1]));
            busy = true;
        }
        if !busy {
            break;
        }
    }
    let second = second?;
    assert!(second.source_runs() != at_c, "one of B and C runs it");
    assert!(first.source_let_go(), "A waits for nothing, and has dropped its copy");
    let ((at_b, had), page_hints) = (first.memories()?, Guest::busy(1).page_hints());
    let there = if at_c { second.memories()?.0 } else { at_b };
    let wrong = (0..PAGES).filter(|n| !page_hints.contains(*n) && there[*n] != had[*n]).count();
    Some(End { at_c, wrong, messages: second.messages() })
}

/// Every mode with post-copy.
fn following() -> impl Iterator<Item = (Mode, bool)> {
    ways().filter(|(mode, _)| matches!(mode, Mode::Auto | Mode::Hybrid))
}

/// A cut after each of `messages` messages, which is delivered or lost.
fn cuts(messages: usize) -> impl Iterator<Item = [Cut; 1]> {
    (0..messages).flat_map(|after| [false, true].map(|lost| [Cut { after, lost }]))
}

#[test]
fn a_vm_that_moves_on_once_all_memory_has_arrived_is_whole() {
    let mut ends = Vec::new();
    for way in following() {
        let mut first = World::new(Guest::busy(1), way.0, way.1, &[]);
        super::run(&mut first);
        let whole = moved_on(way, [&[], &[]], true).expect("there is post-copy");
        ends.extend(cuts(first.messages()).filter_map(|cut| moved_on(way, [&cut, &[]], true)));
        ends.extend(cuts(whole.messages).filter_map(|cut| moved_on(way, [&[], &cut], true)));
        ends.push(whole);
    }
    let at_c = ends.iter().filter(|end| end.at_c).count();
    assert!(at_c > 100 && ends.len() - at_c > 20, "{at_c} of {} moved on", ends.len());
    assert!(ends.iter().all(|end| end.wrong == 0));
}

/// The wrong variant is detected: pages are lost that A, which has dropped its copy, had.
#[test]
fn a_vm_that_moves_on_before_all_memory_has_come_loses_pages() {
    for way in following() {
        let end = moved_on(way, [&[], &[]], false).expect("there is post-copy");
        assert!(end.at_c && end.wrong > 0, "{way:?}: nothing was lost");
    }
}
