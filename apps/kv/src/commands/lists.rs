//! Lists.

use super::context::{Context, integer, range};
use super::error::{Error, INDEX_OUT_OF_RANGE, NO_SUCH_KEY, NOT_POSITIVE, Outcome, SYNTAX};
use crate::protocol::{Args, Reply};
use crate::store::{Blob, List};

/// An end of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

impl End {
    fn push(self, list: &mut List, value: Blob) {
        match self {
            Self::Left => list.push_front(value),
            Self::Right => list.push_back(value),
        }
    }

    fn pop(self, list: &mut List) -> Option<Blob> {
        match self {
            Self::Left => list.pop_front(),
            Self::Right => list.pop_back(),
        }
    }

    fn parse(word: &[u8]) -> Result<Self, Error> {
        match word.to_ascii_lowercase().as_slice() {
            b"left" => Ok(Self::Left),
            b"right" => Ok(Self::Right),
            _ => Err(SYNTAX),
        }
    }
}

fn push(
    context: &mut Context<'_>,
    args: Args<'_>,
    end: End,
    only_if_there: bool,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    let db = context.db();
    if only_if_there && db.find(key, now).is_none() {
        reply.integer(0);
        return Ok(());
    }
    let len = db.change_or_create::<List, _>(key, now, |list| {
        args.from(2).for_each(|value| end.push(list, Blob::from_slice(value)));
        list.len()
    })?;
    reply.length(len);
    Ok(())
}

pub fn lpush(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    push(context, args, End::Left, false, reply)
}

pub fn rpush(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    push(context, args, End::Right, false, reply)
}

pub fn lpushx(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    push(context, args, End::Left, true, reply)
}

pub fn rpushx(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    push(context, args, End::Right, true, reply)
}

fn pop(
    context: &mut Context<'_>,
    args: Args<'_>,
    end: End,
    command: &str,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    if args.len() > 3 {
        return Err(Error::arity(command));
    }
    let Some(count) = args.get(2) else {
        let value = context.db().change::<List, _>(key, now, |list| end.pop(list))?.flatten();
        reply.bulk_or_null(value.as_deref());
        return Ok(());
    };
    let count = integer(count).ok().and_then(|n| usize::try_from(n).ok()).ok_or(NOT_POSITIVE)?;
    match context.db().get_as::<List>(key, now)? {
        None => reply.null_array(),
        Some(_) if count == 0 => reply.array(0),
        Some(list) => {
            let count = count.min(list.len());
            reply.array(count);
            context.db().change::<List, _>(key, now, |list| {
                (0..count).filter_map(|_| end.pop(list)).for_each(|value| reply.bulk(&value));
            })?;
        }
    }
    Ok(())
}

pub fn lpop(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(context, args, End::Left, "lpop", reply)
}

pub fn rpop(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(context, args, End::Right, "rpop", reply)
}

pub fn llen(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.length(context.db().get_as::<List>(args.at(1), now)?.map_or(0, List::len));
    Ok(())
}

pub fn lrange(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, end, now) = (integer(args.at(2))?, integer(args.at(3))?, context.now);
    let Some(list) = context.db().get_as::<List>(args.at(1), now)? else {
        reply.array(0);
        return Ok(());
    };
    let range = range(start, end, list.len());
    reply.array(range.len());
    for value in list.range(range) {
        reply.bulk(value);
    }
    Ok(())
}

/// The position for an index; negative ones count from the end.
fn place(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index.checked_add(len as i64)? } else { index };
    usize::try_from(index).ok().filter(|&i| i < len)
}

pub fn lindex(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let Some(list) = context.db().get_as::<List>(args.at(1), now)? else {
        reply.null();
        return Ok(());
    };
    let index = integer(args.at(2))?;
    reply.bulk_or_null(place(index, list.len()).and_then(|i| list.get(i)).map(|v| &v[..]));
    Ok(())
}

pub fn lset(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let len = context.db().get_as::<List>(args.at(1), now)?.ok_or(NO_SUCH_KEY)?.len();
    let place = place(integer(args.at(2))?, len).ok_or(INDEX_OUT_OF_RANGE)?;
    context.db().change::<List, _>(args.at(1), now, |list| {
        if let Some(value) = list.get_mut(place) {
            *value = Blob::from_slice(args.at(3));
        }
    })?;
    reply.ok();
    Ok(())
}

pub fn lrem(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let count = integer(args.at(2))?;
    let value = args.at(3);
    let limit = usize::try_from(count.unsigned_abs()).ok().filter(|&n| n > 0).unwrap_or(usize::MAX);
    let removed = context.db().change::<List, _>(args.at(1), now, |list| {
        let there = list.iter().filter(|v| ***v == *value).count();
        // From the right, the ones to keep are the first.
        let keep = if count < 0 { there.saturating_sub(limit) } else { 0 };
        let (mut met, mut removed) = (0, 0);
        list.retain(|v| {
            if **v != *value {
                return true;
            }
            met += 1;
            let gone = met > keep && removed < limit;
            removed += usize::from(gone);
            !gone
        });
        removed
    })?;
    reply.length(removed.unwrap_or(0));
    Ok(())
}

pub fn ltrim(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (start, end, now) = (integer(args.at(2))?, integer(args.at(3))?, context.now);
    context.db().change::<List, _>(args.at(1), now, |list| {
        list.keep(range(start, end, list.len()));
    })?;
    reply.ok();
    Ok(())
}

pub fn linsert(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, pivot, now) = (args.at(1), args.at(3), context.now);
    let after = match args.at(2).to_ascii_lowercase().as_slice() {
        b"before" => 0,
        b"after" => 1,
        _ => return Err(SYNTAX),
    };
    let Some(list) = context.db().get_as::<List>(key, now)? else {
        reply.integer(0);
        return Ok(());
    };
    let Some(place) = list.iter().position(|v| **v == *pivot) else {
        reply.integer(-1);
        return Ok(());
    };
    let len = context.db().change::<List, _>(key, now, |list| {
        list.insert(place + after, Blob::from_slice(args.at(4)));
        list.len()
    })?;
    reply.length(len.unwrap_or(0));
    Ok(())
}

pub fn lpos(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, value, now) = (args.at(1), args.at(2), context.now);
    let (mut rank, mut count, mut most) = (1i64, None, 0usize);
    let mut at = 3;
    while at < args.len() {
        let word = args.get(at + 1).ok_or(SYNTAX)?;
        if args.is(at, "rank") {
            rank = integer(word)?;
            if rank == 0 {
                return Err(Error::new(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the \
                     second ... or use negative to start from the end of the list",
                ));
            }
            if rank == i64::MIN {
                return Err(Error::new(
                    "ERR value is out of range, value must between -9223372036854775807 and \
                     9223372036854775807",
                ));
            }
        } else if args.is(at, "count") {
            let n = integer(word).ok().and_then(|n| usize::try_from(n).ok());
            count = Some(n.ok_or(Error::new("ERR COUNT can't be negative"))?);
        } else if args.is(at, "maxlen") {
            let n = integer(word).ok().and_then(|n| usize::try_from(n).ok());
            most = n.ok_or(Error::new("ERR MAXLEN can't be negative"))?;
        } else {
            return Err(SYNTAX);
        }
        at += 2;
    }
    let Some(list) = context.db().get_as::<List>(key, now)? else {
        if count.is_some() {
            reply.array(0)
        } else {
            reply.null()
        }
        return Ok(());
    };
    let looked_at = if most == 0 { list.len() } else { most.min(list.len()) };
    let skipped = rank.unsigned_abs() as usize - 1;
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(n) => n,
    };
    let matches = |(_, v): &(usize, &Blob)| ***v == *value;
    let found: Vec<usize> = if rank < 0 {
        let places = (0..list.len()).rev().zip(list.iter().rev()).take(looked_at);
        places.filter(matches).skip(skipped).take(wanted).map(|(place, _)| place).collect()
    } else {
        let places = list.iter().enumerate().take(looked_at);
        places.filter(matches).skip(skipped).take(wanted).map(|(place, _)| place).collect()
    };
    if count.is_some() {
        reply.array(found.len());
        found.into_iter().for_each(|place| reply.length(place));
    } else {
        match found.first() {
            Some(&place) => reply.length(place),
            None => reply.null(),
        }
    }
    Ok(())
}

fn move_element(
    context: &mut Context<'_>,
    args: Args<'_>,
    from: End,
    to: End,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (source, target, now) = (args.at(1), args.at(2), context.now);
    if context.db().get_as::<List>(source, now)?.is_none() {
        reply.null();
        return Ok(());
    }
    context.db().get_as::<List>(target, now)?;
    let db = context.db();
    if source == target {
        let value = db.change::<List, _>(source, now, |list| {
            let value = from.pop(list)?;
            to.push(list, value.clone());
            Some(value)
        })?;
        reply.bulk_or_null(value.flatten().as_deref());
        return Ok(());
    }
    if let Some(value) = db.change::<List, _>(source, now, |list| from.pop(list))?.flatten() {
        reply.bulk(&value);
        db.change_or_create::<List, _>(target, now, |list| to.push(list, value))?;
    }
    Ok(())
}

pub fn lmove(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (from, to) = (End::parse(args.at(3))?, End::parse(args.at(4))?);
    move_element(context, args, from, to, reply)
}

pub fn rpoplpush(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    move_element(context, args, End::Right, End::Left, reply)
}
