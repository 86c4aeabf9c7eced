//! Strings.

use super::context::{Context, float, integer, range};
use super::error::{Error, NOT_FLOAT, NOT_INTEGER, OVERFLOW, Outcome, SYNTAX};
use super::expiry::{self, Unit};
use crate::protocol::number::{add_decimals, parse_f64, parse_i64};
use crate::protocol::{Args, Reply};
use crate::store::{Blob, Value};

const TOO_LONG: Error = Error::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)");

/// Copies the string of `key` to the reply.
fn reply_string(context: &mut Context<'_>, key: &[u8], reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let value = context.db().get_as::<Blob>(key, now)?;
    reply.bulk_or_null(value.map(|v| &v[..]));
    let found = value.is_some();
    context.looked_up(found);
    Ok(())
}

pub fn get(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_string(context, args.at(1), reply)
}

/// The expiry options of SET and GETEX.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Clear,
    Keep,
    At(u64),
}

/// An option with a time, such as `EX 10`.
fn expiry_option(
    context: &Context<'_>,
    args: Args<'_>,
    at: usize,
    command: &str,
) -> Result<Option<u64>, Error> {
    for (name, unit, absolute) in [
        ("ex", Unit::Seconds, false),
        ("px", Unit::Milliseconds, false),
        ("exat", Unit::Seconds, true),
        ("pxat", Unit::Milliseconds, true),
    ] {
        if args.is(at, name) {
            let amount = integer(args.get(at + 1).ok_or(SYNTAX)?)?;
            return expiry::positive(amount, unit, absolute, context.now, command).map(Some);
        }
    }
    Ok(None)
}

/// Records one of several exclusive choices, which may be repeated only with the same choice.
fn choose<T: PartialEq>(slot: &mut Option<T>, choice: T) -> Outcome {
    if slot.as_ref().is_some_and(|old| *old != choice) {
        return Err(SYNTAX);
    }
    *slot = Some(choice);
    Ok(())
}

pub fn set(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, value, now) = (args.at(1), args.at(2), context.now);
    if args.len() == 3 {
        context.db().set_string(key, value);
        reply.ok();
        return Ok(());
    }
    let (mut condition, mut expiry, mut get) = (None, None, false);
    let mut at = 3;
    let mut time_at = None;
    while at < args.len() {
        let has_next = at + 1 < args.len();
        if args.is(at, "nx") {
            choose(&mut condition, false)?;
        } else if args.is(at, "xx") {
            choose(&mut condition, true)?;
        } else if args.is(at, "get") {
            get = true;
        } else if args.is(at, "keepttl") {
            choose(&mut expiry, Expiry::Keep)?;
        } else if ["ex", "px", "exat", "pxat"].iter().any(|name| args.is(at, name))
            && has_next
            && time_at.is_none()
        {
            // The time itself is checked once all words are known to be valid.
            choose(&mut expiry, Expiry::Clear)?;
            time_at = Some(at);
            at += 1;
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    let mut expiry = expiry.unwrap_or(Expiry::Clear);
    if let Some(at) = time_at {
        expiry = expiry_option(context, args, at, "set")?.map_or(expiry, Expiry::At);
    }
    if get {
        reply_string(context, key, reply)?;
    }
    let db = context.db();
    let there = db.find(key, now);
    if condition.is_some_and(|wanted| wanted != there.is_some()) {
        if !get {
            reply.null();
        }
        return Ok(());
    }
    let kept = there.and_then(|index| db.expires_at(index));
    db.set_string(key, value);
    match expiry {
        Expiry::Clear => {}
        Expiry::Keep => db.expire(key, kept),
        Expiry::At(when) if when <= now => drop(db.remove(key, now)),
        Expiry::At(when) => db.expire(key, Some(when)),
    }
    if !get {
        reply.ok();
    }
    Ok(())
}

pub fn getset(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_string(context, args.at(1), reply)?;
    context.db().set_string(args.at(1), args.at(2));
    Ok(())
}

pub fn getdel(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_string(context, args.at(1), reply)?;
    let now = context.now;
    context.db().remove(args.at(1), now);
    Ok(())
}

pub fn getex(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    let persist = args.len() == 3 && args.is(2, "persist");
    let timed = args.len() == 4 && ["ex", "px", "exat", "pxat"].iter().any(|name| args.is(2, name));
    if !persist && !timed && args.len() != 2 {
        return Err(SYNTAX);
    }
    // A missing key is answered before a wrong time is.
    if timed && context.db().get_as::<Blob>(key, now)?.is_some() {
        let when = expiry_option(context, args, 2, "getex")?.ok_or(SYNTAX)?;
        reply_string(context, key, reply)?;
        let db = context.db();
        if when <= now {
            drop(db.remove(key, now))
        } else {
            db.expire(key, Some(when))
        }
        return Ok(());
    }
    reply_string(context, key, reply)?;
    if persist {
        context.db().expire(key, None);
    }
    Ok(())
}

/// Refuses a string that would exceed the allowed length, or the available memory.
fn check_growth(context: &Context<'_>, len: usize, more: usize) -> Outcome {
    let total = len.saturating_add(more);
    if total > context.state.config.max_string {
        return Err(TOO_LONG);
    }
    // A growing string may have to be copied as a whole.
    context.need_memory(total.next_power_of_two())
}

pub fn append(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, more, now) = (args.at(1), args.at(2), context.now);
    let len = context.db().get_as::<Blob>(key, now)?.map_or(0, |s| s.len());
    check_growth(context, len, more.len())?;
    let len = context.db().change_or_create::<Blob, _>(key, now, |s| {
        s.extend_from_slice(more);
        s.len()
    })?;
    reply.length(len);
    Ok(())
}

pub fn strlen(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let len = context.db().get_as::<Blob>(args.at(1), now)?.map(|s| s.len());
    context.looked_up(len.is_some());
    reply.length(len.unwrap_or(0));
    Ok(())
}

fn add(context: &mut Context<'_>, key: &[u8], amount: i64, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let db = context.db();
    let there = db.find(key, now).is_some();
    let sum = db.change_or_create::<Blob, _>(key, now, |s| {
        let old = if there { parse_i64(s) } else { Some(0) };
        let sum = old.ok_or(NOT_INTEGER)?.checked_add(amount).ok_or(OVERFLOW)?;
        s.clear();
        s.extend_from_slice(itoa::Buffer::new().format(sum).as_bytes());
        Ok::<_, Error>(sum)
    })?;
    reply.integer(sum?);
    Ok(())
}

pub fn incr(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(context, args.at(1), 1, reply)
}

pub fn decr(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(context, args.at(1), -1, reply)
}

pub fn incrby(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(context, args.at(1), integer(args.at(2))?, reply)
}

pub fn decrby(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let amount =
        integer(args.at(2))?.checked_neg().ok_or(Error::new("ERR decrement would overflow"))?;
    add(context, args.at(1), amount, reply)
}

pub fn incrbyfloat(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    let old = context.db().get_as::<Blob>(key, now)?.cloned();
    let old = old.as_deref().unwrap_or(b"0");
    parse_f64(old).ok_or(NOT_FLOAT)?;
    float(args.at(2))?;
    let sum = add_decimals(old, args.at(2))
        .ok_or(Error::new("ERR increment would produce NaN or Infinity"))?;
    context.db().change_or_create::<Blob, _>(key, now, |s| {
        s.clear();
        s.extend_from_slice(sum.as_bytes());
    })?;
    reply.bulk(sum.as_bytes());
    Ok(())
}

pub fn mget(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.array(args.len() - 1);
    for key in args.from(1) {
        let value = context.db().get_as::<Blob>(key, now).ok().flatten();
        reply.bulk_or_null(value.map(|v| &v[..]));
        let found = value.is_some();
        context.looked_up(found);
        if reply.overflowed() {
            break;
        }
    }
    Ok(())
}

fn set_all(context: &mut Context<'_>, args: Args<'_>) {
    let db = context.db();
    let mut words = args.from(1);
    while let (Some(key), Some(value)) = (words.next(), words.next()) {
        db.set_string(key, value);
    }
}

pub fn mset(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(Error::arity("mset"));
    }
    set_all(context, args);
    reply.ok();
    Ok(())
}

pub fn msetnx(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if args.len().is_multiple_of(2) {
        return Err(Error::arity("msetnx"));
    }
    let now = context.now;
    let free = args.from(1).step_by(2).all(|key| context.db().find(key, now).is_none());
    if free {
        set_all(context, args);
    }
    reply.flag(free);
    Ok(())
}

pub fn setnx(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let free = context.db().find(args.at(1), now).is_none();
    if free {
        context.db().set_string(args.at(1), args.at(2));
    }
    reply.flag(free);
    Ok(())
}

fn set_for(
    context: &mut Context<'_>,
    args: Args<'_>,
    unit: Unit,
    command: &str,
    reply: &mut Reply<'_>,
) -> Outcome {
    let when = expiry::positive(integer(args.at(2))?, unit, false, context.now, command)?;
    let db = context.db();
    db.set(args.at(1), Value::String(Blob::from_slice(args.at(3))));
    db.expire(args.at(1), Some(when));
    reply.ok();
    Ok(())
}

pub fn setex(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_for(context, args, Unit::Seconds, "setex", reply)
}

pub fn psetex(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_for(context, args, Unit::Milliseconds, "psetex", reply)
}

pub fn getrange(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, end, now) = (integer(args.at(2))?, integer(args.at(3))?, context.now);
    match context.db().get_as::<Blob>(args.at(1), now)? {
        // If both count from the end and are out of order, the result is empty, even at the start.
        Some(s) if !(start < 0 && end < 0 && start > end) => {
            let end = if end < 0 { end.saturating_add(s.len() as i64).max(0) } else { end };
            reply.bulk(&s[range(start, end, s.len())]);
        }
        _ => reply.bulk(b""),
    }
    Ok(())
}

pub fn setrange(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, value, now) = (args.at(1), args.at(3), context.now);
    let Ok(offset) = usize::try_from(integer(args.at(2))?) else {
        return Err(Error::new("ERR offset is out of range"));
    };
    let len = context.db().get_as::<Blob>(key, now)?.map(|s| s.len());
    if value.is_empty() {
        reply.length(len.unwrap_or(0));
        return Ok(());
    }
    check_growth(context, offset, value.len())?;
    let len = context.db().change_or_create::<Blob, _>(key, now, |s| {
        let end = offset + value.len();
        if s.len() < end {
            s.resize(end, 0);
        }
        s[offset..end].copy_from_slice(value);
        s.len()
    })?;
    reply.length(len);
    Ok(())
}
