//! The requests `protect`, `unprotect` and `failover` of the control socket, and the figures.

use super::{
    Error,
    arbiter::Asking,
    moves::{self, identity},
    server::{Answer, Reply},
};
use api::{
    Request, Response,
    answer::Done,
    progress::{Event, Pages, Progress as Told},
    replication::{self, Replication},
    verb,
};
use migrate::replication::{Commit, Settings, arbiter::MemberId};
use std::{
    fs::File,
    io,
    os::fd::{OwnedFd, RawFd},
    time::Duration,
};
use vmm::{
    replication::protection::{
        Beside, Figures, How, Member, PacketKeeper, Progress, Protector, Role, StandbyFigures,
    },
    vm::Observer,
};

/// How long `unprotect` and `failover` may take.
const WITHIN: Duration = Duration::from_secs(10);

impl Observer<Progress> for Reply {
    fn progress(&mut self, progress: Progress) -> io::Result<()> {
        self.tell(match progress {
            Progress::Phase(doing) => Told::Event(Event::Phase { doing: doing.into(), at_ns: 0 }),
            Progress::Pages(pages) => Told::Pages(Pages { pages, of: 0 }),
        })
    }

    fn fd(&self) -> RawFd {
        self.stream_fd()
    }
}

/// Whether a VM that is protected, or a standby's copy, may do this.
///
/// # Errors
/// What it is instead.
pub fn may(member: &Member, request: &Request) -> Result<(), Error> {
    let Some(role) = member.role() else { return Ok(()) };
    match (role, request) {
        // Of a VM whose move in lockstep has an unknown outcome.
        (Role::Standby, Request::Resume(verb)) if verb.runs_nowhere_else => Ok(()),
        (_, Request::Migrate(_)) => Err(Error::Protected("moved")),
        (_, Request::Revert(_)) => Err(Error::Protected("put back to a snapshot")),
        (
            Role::Standby,
            Request::Pause(_) | Request::Resume(_) | Request::Snapshot(_) | Request::Fork(_),
        ) => Err(Error::Standby),
        _ => Ok(()),
    }
}

/// Protects the VM.
pub fn protect(
    member: &Member,
    request: &verb::Protect,
    mut files: Vec<File>,
    reply: &mut Reply,
) -> Answer {
    let how = how(request)?;
    let dialer = moves::dialer_in(request.connector, &mut files)?;
    let came = files.len();
    let mut next = || files.pop().map(OwnedFd::from).ok_or(Error::Files { came, expected: 2 });
    let protector = request.protector.then(&mut next).transpose()?.map(Protector::new);
    let (keeper, arbiter) = (next()?, next()?);
    let transport = identity::from_request(request.identity.as_ref(), request.plaintext, files)?;
    let to = moves::address_in(&request.to, request.addresses.as_deref())?.through(dialer);
    let beside = Beside {
        arbiter: Box::new(Asking::new(arbiter)),
        keeper: Some(PacketKeeper::new(keeper)),
        protector,
    };
    let protected = member.protect(&to, &transport, beside, how, reply)?;
    Ok(Response::Protected(replication::Protected {
        member: protected.member.to_string(),
        term: protected.term,
        took_ns: api::nanoseconds(protected.took),
        pause_ns: api::nanoseconds(protected.pause),
        pages: protected.pages,
    }))
}

fn how(request: &verb::Protect) -> Result<How, Error> {
    let time = |member, ns: Option<u64>, usual| match ns {
        Some(0) => Err(Error::Value(member, "it must not be 0")),
        Some(ns) => Ok(Duration::from_nanos(ns)),
        None => Ok(usual),
    };
    let usual = Settings::default();
    let settings = Settings {
        commit: match request.commit {
            verb::Commit::Received => Commit::Received,
            verb::Commit::Executed => Commit::Executed,
        },
        heartbeat: time("heartbeat_ns", request.heartbeat_ns, usual.heartbeat)?,
        misses: match request.misses {
            Some(0) => return Err(Error::Value("misses", "it must not be 0")),
            misses => misses.unwrap_or(usual.misses),
        },
        max_lag: time("max_lag_ns", request.max_lag_ns, usual.max_lag)?,
        alone_without_arbiter: request.alone_without_arbiter,
        ..usual
    };
    if request.allow_own_clock && request.commit != verb::Commit::Executed {
        return Err(Error::Value(
            "allow_own_clock",
            "a program that takes values from the CPU by itself may compute something else at the \
             standby, so its output has to wait until that is known: it needs commit executed",
        ));
    }
    Ok(How { settings, allow_own_clock: request.allow_own_clock })
}

/// Ends the protection.
pub fn unprotect(member: &Member, request: verb::Unprotect) -> Answer {
    member.unprotect(request.timeout_ns.map_or(WITHIN, Duration::from_nanos))?;
    Ok(Response::Done(Done {}))
}

/// Swaps roles.
pub fn failover(member: &Member, request: &verb::Failover) -> Answer {
    let to = request.to.as_deref().map(member_of).transpose()?;
    let within = request.timeout_ns.map_or(WITHIN, Duration::from_nanos);
    let swapped = member.failover(to, within)?;
    Ok(Response::Swapped(replication::Swapped {
        to: swapped.to.to_string(),
        term: swapped.term,
        blackout_ns: api::nanoseconds(swapped.blackout),
    }))
}

fn member_of(text: &str) -> Result<MemberId, Error> {
    let wrong = Error::Value("to", "a member is 32 hexadecimal digits: `stats` lists them");
    if text.len() != 32 {
        return Err(wrong);
    }
    let number = u128::from_str_radix(text, 16).map_err(|_| wrong)?;
    Ok(MemberId(number.to_be_bytes()))
}

/// The figures, as the API has them.
pub fn figures(figures: Figures) -> Replication {
    // Named one by one, so that a new figure cannot be forgotten here.
    let Figures {
        set,
        member,
        role,
        term,
        active,
        in_sync,
        arbiter_unreachable,
        last,
        log_bytes,
        executed,
        released,
        slowed_down,
        standbys,
        primary_silent,
        divergences,
        takeovers,
        events,
    } = figures;
    Replication {
        set: set.to_string(),
        member: member.to_string(),
        role: match role {
            Role::Primary => replication::Role::Primary,
            Role::Standby => replication::Role::Standby,
            Role::Fenced => replication::Role::Fenced,
        },
        term: term.0,
        active: active.map(|member| member.to_string()),
        in_sync: in_sync.iter().map(MemberId::to_string).collect(),
        arbiter_unreachable,
        last,
        log_bytes,
        executed,
        released,
        slowed_down,
        standbys: standbys.into_iter().map(standby).collect(),
        primary_silent_ns: primary_silent.map(api::nanoseconds),
        divergences,
        takeovers,
        events,
    }
}

fn standby(figures: StandbyFigures) -> replication::Standby {
    let StandbyFigures {
        member,
        address,
        in_sync,
        leaving,
        not_received,
        not_executed,
        lag,
        lag_bytes,
        round_trip,
        silent,
    } = figures;
    replication::Standby {
        member: member.to_string(),
        address,
        in_sync,
        leaving,
        not_received,
        not_executed,
        lag_ns: api::nanoseconds(lag),
        lag_bytes,
        round_trip_ns: api::nanoseconds(round_trip),
        silent_ns: api::nanoseconds(silent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_options_has_the_usual_ones() {
        assert_eq!(how(&verb::Protect::default()).unwrap(), How::default());
        let zero = verb::Protect { heartbeat_ns: Some(0), ..verb::Protect::default() };
        assert!(how(&zero).unwrap_err().to_string().contains("heartbeat_ns"));
        let clock = verb::Protect { allow_own_clock: true, ..verb::Protect::default() };
        assert!(how(&clock).unwrap_err().to_string().contains("commit executed"));
        let clock = verb::Protect { commit: verb::Commit::Executed, ..clock };
        assert_eq!(how(&clock).unwrap().settings.commit, Commit::Executed);
    }

    #[test]
    fn members_are_hexadecimal() {
        let member = MemberId([0xa7; 16]);
        assert_eq!(member_of(&member.to_string()).unwrap(), member);
        for wrong in ["", "kv", &"g".repeat(32), &"0".repeat(33)] {
            assert!(member_of(wrong).is_err(), "{wrong}");
        }
    }
}
