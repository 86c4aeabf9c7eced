//! What must hold in every state, and what must be reachable, as the rest proves nothing otherwise.

use stateright::Property;

use migrate::source::Mode;

use super::world::{Harsh, Moves, World};

/// Rule R1.
pub const ONE: &str = "never two run";
/// Rule R2, after the commit.
pub const WORD: &str = "after the commit it runs again at the source only where it never ran and \
    never will at the receiver";
/// Rule R2, before the commit.
pub const BACK: &str =
    "what fails before the commit leaves the VM running at the source, not fenced";
/// The fence.
pub const FENCE: &str = "a commit that is out is fenced";
/// The drivers' rules, and the memory.
pub const WHOLE: &str = "no machine breaks a driver's rule, and memory arrives whole";
/// No wait before the commit is unlimited.
pub const DEADLINE: &str = "before the commit every wait has a deadline";
/// Post-copy pages.
pub const KEPT: &str = "the source keeps memory that the receiver lacks";
/// Answers.
pub const ANSWERS: &str = "no move is reported both to have run and never to have";

/// All properties.
pub fn all(model: &Moves) -> Vec<Property<Moves>> {
    let mut all = vec![
        Property::always(ONE, |_, w: &World| !(w.runs_at_source() && w.runs_at_receiver())),
        Property::always(WORD, |_, w: &World| {
            w.tries.iter().all(|t| !t.resumed || !t.ran && t.said_never)
        }),
        Property::always(FENCE, fenced),
        Property::always(ANSWERS, |_, w: &World| w.tries.iter().all(|t| !(t.ran && t.said_never))),
        Property::sometimes("a move succeeds", |_, w: &World| {
            w.runs_at_receiver() && w.origin.as_ref().is_some_and(|o| o.moved)
        }),
    ];
    if model.bounds.questions > 0 {
        all.push(Property::sometimes(
            "the source learns that the VM never ran there, and lets it run on",
            |_, w: &World| w.runs_at_source() && w.tries.iter().any(|t| t.resumed),
        ));
    }
    if model.bounds.harsh == Harsh::NONE {
        all.extend([
            Property::always(BACK, back),
            Property::always(WHOLE, |_, w: &World| w.broken.is_none()),
            Property::always(DEADLINE, deadline),
            Property::always(KEPT, |_, w: &World| {
                !(w.lacking_at_receiver() && w.origin.as_ref().is_some_and(|o| o.moved))
            }),
        ]);
    } else {
        all.push(Property::sometimes(
            "what was repeated or lost did not keep a move from succeeding",
            |_, w: &World| w.runs_at_receiver() && w.copies + w.losses > 0,
        ));
    }
    if model.bounds.tries > 1 {
        all.push(Property::sometimes("a try after a failed one succeeds", |_, w: &World| {
            w.tries.len() > 1
                && w.tries[0].failed
                && w.tries[1].ran
                && w.origin.as_ref().is_some_and(|o| o.moved)
        }));
    }
    if model.bounds.tries > 1 && model.bounds.questions > 0 {
        all.push(Property::sometimes(
            "a try succeeds after one that was committed and never ran",
            |_, w: &World| w.tries.len() > 1 && w.tries[0].resumed && w.tries[1].ran,
        ));
    }
    if model.bounds.mode == Mode::Hybrid && model.bounds.harsh == Harsh::NONE {
        all.extend([
            Property::sometimes("a VM runs while pages are missing", |_, w: &World| {
                w.runs_at_receiver() && w.lacking_at_receiver()
            }),
            Property::sometimes(
                "all that was missing has come on a second connection",
                |_, w: &World| {
                    let moved = w.origin.as_ref().is_some_and(|o| o.moved);
                    moved
                        && w.questions > 0
                        && w.runs_at_receiver()
                        && w.connections.len() > w.tries.len()
                },
            ),
            Property::sometimes("a VM is lost for want of pages", |_, w: &World| {
                w.tries.iter().any(|t| t.lost)
            }),
        ]);
    }
    if model.bounds.restarts > 0 {
        all.push(Property::sometimes(
            "a VM that had arrived dies with its host, and the source stays stopped",
            |_, w: &World| {
                w.tries.iter().any(|t| t.ran)
                    && w.receiver.as_ref().is_some_and(|r| !r.taken)
                    && w.origin.as_ref().is_some_and(|o| o.fenced)
            },
        ));
    }
    all
}

fn fenced(_: &Moves, world: &World) -> bool {
    let Some(origin) = &world.origin else { return true };
    let out = world.tries.last().is_some_and(|t| t.committed && !t.resumed);
    !out || origin.moved || origin.fenced && !origin.runs
}

/// While nothing is committed nothing is fenced; when an attempt has failed the guest runs.
fn back(_: &Moves, world: &World) -> bool {
    let Some(origin) = &world.origin else { return true };
    let committed = world.tries.last().is_some_and(|t| t.committed && !t.resumed);
    let failed = origin.mover.is_none() && world.tries.last().is_some_and(|t| t.failed);
    (committed || !origin.fenced) && (!failed || origin.runs)
}

fn deadline(_: &Moves, world: &World) -> bool {
    let source = world.origin.as_ref().and_then(|o| o.mover.as_ref()).is_none_or(|m| {
        m.machine.committed() || !m.tasks.is_empty() || m.machine.deadline().is_some()
    });
    let receiver = world
        .receiver
        .as_ref()
        .and_then(|r| r.attempt.as_ref())
        .is_none_or(|a| a.machine.runs() || a.task.is_some() || a.machine.deadline().is_some());
    source && receiver
}
