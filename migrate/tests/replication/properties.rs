//! What must hold in every state, and what must be reachable, as the rest proves nothing otherwise.

use migrate::replication::Commit;
use stateright::Property;

use super::world::{Flaw, Member, Role, Sets, World};

pub const TERM: &str = "never two active in a term";
pub const TWO: &str = "never two that release output, except what both have";
pub const AHEAD: &str = "no output is released ahead of its record at every member in sync";
pub const LOST: &str = "no output is left out";
pub const WHOLE: &str = "a member takes over when it has executed all it has";
pub const WRONG: &str = "a copy that diverged never takes over";
pub const DRIVER: &str = "no machine breaks a driver's rule";
pub const PROGRESS: &str = "when one fault is over, a member is active and has released everything";

pub fn all(model: &Sets) -> Vec<Property<Sets>> {
    let bounds = &model.bounds;
    let mut all = vec![
        Property::always(TERM, |_, w: &World| !w.flaws.contains(&Flaw::Term)),
        Property::always(TWO, |_, w: &World| !w.flaws.contains(&Flaw::Two)),
        Property::always(LOST, |_, w: &World| !w.flaws.contains(&Flaw::Lost)),
        Property::always(WHOLE, |_, w: &World| !w.flaws.contains(&Flaw::Unfinished)),
        Property::always(WRONG, |_, w: &World| !w.flaws.contains(&Flaw::Wrong)),
        Property::always(DRIVER, |_, w: &World| {
            !w.flaws.iter().any(|flaw| matches!(flaw, Flaw::Driver(_)))
        }),
        Property::always(AHEAD, |model: &Sets, w: &World| {
            !w.flaws.is_empty() || w.stands_behind(model.bounds.commit == Commit::Executed)
        }),
        Property::always(PROGRESS, |model: &Sets, w: &World| {
            w.faults > 1 || w.excused || !w.flaws.is_empty() || progress(model, w)
        }),
    ];
    if bounds.faults > 0 && (bounds.deaths || bounds.cuts) {
        all.push(Property::sometimes("a standby takes over, and goes on", |_, w: &World| {
            w.seen.iter().any(|entry| entry.by != w.seen[0].by)
        }));
    }
    if bounds.swaps > 0 {
        all.push(Property::sometimes("a swap succeeds without a fault", |_, w: &World| {
            w.faults == 0 && w.seen.iter().any(|entry| entry.by > 0)
        }));
    }
    if bounds.joins > 0 {
        all.push(Property::sometimes("a standby joins", |_, w: &World| {
            let last = w.members.len() - 1;
            w.named().any(|(n, _)| n == last)
        }));
    }
    if bounds.lag || bounds.unprotect {
        all.push(Property::sometimes(
            "a standby leaves the set without a fault",
            |_, w: &World| {
                w.faults == 0 && w.record().is_some_and(|it| it.in_sync.is_empty() && it.term.0 > 2)
            },
        ));
    }
    if bounds.alarms && bounds.standbys > 0 {
        all.push(Property::sometimes(
            "one fault, and two members compete: one ends",
            |_, w: &World| {
                let ended = |it: &Member| matches!(it.role, Role::Ended);
                w.faults == 1 && w.get(0).is_some_and(ended) && w.seen.len() > 1
            },
        ));
    }
    if bounds.silence && bounds.faults > 1 {
        all.push(Property::sometimes("a standby takes over with a late answer", |_, w: &World| {
            w.faults > 1 && w.seen.last().is_some_and(|entry| entry.by > 0)
        }));
    }
    all
}

/// Where nothing happens by itself any more, one member is active by the arbiter's record, and all
/// its output is out.
fn progress(model: &Sets, world: &World) -> bool {
    if !model.inner_steps(world).is_empty() {
        return true;
    }
    let active = |member: &Member| {
        let primary = member.primary().filter(|primary| primary.active());
        let all = member.log.len() as u64;
        primary.is_some_and(|primary| {
            primary.released() == all
                && primary.record() == world.record()
                && world.seen.len() as u64 == all
        })
    };
    world.members.iter().flatten().filter(|member| active(member)).count() == 1
}
