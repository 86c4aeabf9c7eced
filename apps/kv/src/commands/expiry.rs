//! When keys expire.

use super::context::{Context, integer};
use super::error::{Error, Outcome};
use crate::protocol::{Args, Reply};

/// The unit of a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// The Unix time in ms for `amount`, which may be in the past; `None` on overflow.
fn when(amount: i64, unit: Unit, absolute: bool, now: u64) -> Option<i64> {
    let amount = match unit {
        Unit::Seconds => amount.checked_mul(1000)?,
        Unit::Milliseconds => amount,
    };
    if absolute { Some(amount) } else { amount.checked_add(i64::try_from(now).ok()?) }
}

fn invalid(command: &str) -> Error {
    Error::text(format!("ERR invalid expire time in '{command}' command"))
}

/// The Unix time in ms for a positive `amount`.
///
/// # Errors
/// It is not positive, or too large.
pub fn positive(
    amount: i64,
    unit: Unit,
    absolute: bool,
    now: u64,
    command: &str,
) -> Result<u64, Error> {
    if amount <= 0 {
        return Err(invalid(command));
    }
    when(amount, unit, absolute, now)
        .and_then(|when| u64::try_from(when).ok())
        .ok_or_else(|| invalid(command))
}

fn set_expiry(
    context: &mut Context<'_>,
    args: Args<'_>,
    unit: Unit,
    absolute: bool,
    command: &str,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    let (mut if_none, mut if_some, mut if_later, mut if_earlier) = (false, false, false, false);
    for option in args.from(3) {
        match option.to_ascii_lowercase().as_slice() {
            b"nx" => if_none = true,
            b"xx" => if_some = true,
            b"gt" => if_later = true,
            b"lt" => if_earlier = true,
            _ => {
                return Err(Error::text(format!(
                    "ERR Unsupported option {}",
                    String::from_utf8_lossy(option)
                )));
            }
        }
    }
    if if_none && (if_some || if_later || if_earlier) {
        return Err(Error::new(
            "ERR NX and XX, GT or LT options at the same time are not compatible",
        ));
    }
    if if_later && if_earlier {
        return Err(Error::new("ERR GT and LT options at the same time are not compatible"));
    }
    let amount = integer(args.at(2))?;
    let when = when(amount, unit, absolute, now).ok_or_else(|| invalid(command))?;
    let db = context.db();
    let Some(index) = db.find(key, now) else {
        reply.flag(false);
        return Ok(());
    };
    let old = db.expires_at(index);
    // A key without expiry counts as expiring later than any other.
    let refused = (if_none && old.is_some())
        || (if_some && old.is_none())
        || (if_later && old.is_none_or(|old| when <= old as i64))
        || (if_earlier && old.is_some_and(|old| when >= old as i64));
    if !refused {
        match u64::try_from(when) {
            Ok(when) if when > now => db.expire(key, Some(when)),
            _ => drop(db.remove(key, now)),
        }
    }
    reply.flag(!refused);
    Ok(())
}

pub fn expire(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(context, args, Unit::Seconds, false, "expire", reply)
}

pub fn pexpire(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(context, args, Unit::Milliseconds, false, "pexpire", reply)
}

pub fn expireat(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(context, args, Unit::Seconds, true, "expireat", reply)
}

pub fn pexpireat(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_expiry(context, args, Unit::Milliseconds, true, "pexpireat", reply)
}

/// Answers with a time: -2 without a key, -1 without expiry, otherwise the result of `f`.
fn time(
    context: &mut Context<'_>,
    key: &[u8],
    reply: &mut Reply<'_>,
    f: impl FnOnce(u64) -> u64,
) -> Outcome {
    let now = context.now;
    let db = context.db();
    match db.find(key, now).map(|index| db.expires_at(index)) {
        None => reply.integer(-2),
        Some(None) => reply.integer(-1),
        Some(Some(when)) => reply.integer(i64::try_from(f(when)).unwrap_or(i64::MAX)),
    }
    Ok(())
}

pub fn ttl(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    time(context, args.at(1), reply, |when| (when - now + 500) / 1000)
}

pub fn pttl(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    time(context, args.at(1), reply, |when| when - now)
}

pub fn expiretime(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    time(context, args.at(1), reply, |when| (when + 500) / 1000)
}

pub fn pexpiretime(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    time(context, args.at(1), reply, |when| when)
}

pub fn persist(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let db = context.db();
    let expires = db.find(args.at(1), now).and_then(|index| db.expires_at(index)).is_some();
    if expires {
        db.expire(args.at(1), None);
    }
    reply.flag(expires);
    Ok(())
}
