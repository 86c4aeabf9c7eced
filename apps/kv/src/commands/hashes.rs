//! Hashes.

use super::context::{Context, float, integer};
use super::error::{Error, NOT_INTEGER, OVERFLOW, Outcome, SYNTAX};
use crate::protocol::number::{add_decimals, parse_f64, parse_i64};
use crate::protocol::{Args, Reply};
use crate::store::Blob;
use crate::store::value::Hash;

/// Sets the fields. Returns how many are new.
fn set_fields(context: &mut Context<'_>, args: Args<'_>, command: &str) -> Result<usize, Error> {
    if !args.len().is_multiple_of(2) {
        return Err(Error::arity(command));
    }
    let now = context.now;
    let added = context.db().change_or_create::<Hash, _>(args.at(1), now, |hash| {
        let (mut words, mut added) = (args.from(2), 0);
        while let (Some(field), Some(value)) = (words.next(), words.next()) {
            added += usize::from(hash.insert(field, Blob::from_slice(value)).is_none());
        }
        added
    })?;
    Ok(added)
}

pub fn hset(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.length(set_fields(context, args, "hset")?);
    Ok(())
}

pub fn hmset(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    set_fields(context, args, "hmset")?;
    reply.ok();
    Ok(())
}

pub fn hsetnx(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let added = context.db().change_or_create::<Hash, _>(args.at(1), now, |hash| {
        let free = !hash.contains(args.at(2));
        if free {
            hash.insert_new(args.at(2), Blob::from_slice(args.at(3)));
        }
        free
    })?;
    reply.flag(added);
    Ok(())
}

pub fn hget(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.bulk_or_null(hash.and_then(|h| h.get(args.at(2))).map(|v| &v[..]));
    let found = hash.is_some();
    context.looked_up(found);
    Ok(())
}

pub fn hmget(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.array(args.len() - 2);
    args.from(2)
        .for_each(|field| reply.bulk_or_null(hash.and_then(|h| h.get(field)).map(|v| &v[..])));
    Ok(())
}

pub fn hgetall(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.map(hash.map_or(0, Hash::len));
    for entry in hash.iter().flat_map(|h| h.iter()) {
        reply.bulk(&entry.key);
        reply.bulk(&entry.value);
    }
    Ok(())
}

pub fn hkeys(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|h| h.iter()).for_each(|entry| reply.bulk(&entry.key));
    Ok(())
}

pub fn hvals(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|h| h.iter()).for_each(|entry| reply.bulk(&entry.value));
    Ok(())
}

pub fn hdel(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let removed = context.db().change::<Hash, _>(args.at(1), now, |hash| {
        args.from(2).filter(|field| hash.remove(field).is_some()).count()
    })?;
    reply.length(removed.unwrap_or(0));
    Ok(())
}

pub fn hexists(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.flag(hash.is_some_and(|h| h.contains(args.at(2))));
    Ok(())
}

pub fn hlen(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.length(context.db().get_as::<Hash>(args.at(1), now)?.map_or(0, Hash::len));
    Ok(())
}

pub fn hstrlen(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    reply.length(hash.and_then(|h| h.get(args.at(2))).map_or(0, |v| v.len()));
    Ok(())
}

pub fn hincrby(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, field, now) = (args.at(1), args.at(2), context.now);
    let amount = parse_i64(args.at(3)).ok_or(NOT_INTEGER)?;
    let old = match context.db().get_as::<Hash>(key, now)?.and_then(|h| h.get(field)) {
        None => 0,
        Some(value) => parse_i64(value).ok_or(Error::new("ERR hash value is not an integer"))?,
    };
    let sum = old.checked_add(amount).ok_or(OVERFLOW)?;
    let text = Blob::from_slice(itoa::Buffer::new().format(sum).as_bytes());
    context.db().change_or_create::<Hash, _>(key, now, |hash| hash.insert(field, text))?;
    reply.integer(sum);
    Ok(())
}

pub fn hincrbyfloat(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, field, now) = (args.at(1), args.at(2), context.now);
    if !float(args.at(3))?.is_finite() {
        return Err(Error::new("ERR value is NaN or Infinity"));
    }
    let old = context.db().get_as::<Hash>(key, now)?.and_then(|h| h.get(field)).cloned();
    let old = old.as_deref().unwrap_or(b"0");
    parse_f64(old).ok_or(Error::new("ERR hash value is not a float"))?;
    let sum = add_decimals(old, args.at(3))
        .ok_or(Error::new("ERR increment would produce NaN or Infinity"))?;
    let text = Blob::from_slice(sum.as_bytes());
    context.db().change_or_create::<Hash, _>(key, now, |hash| hash.insert(field, text))?;
    reply.bulk(sum.as_bytes());
    Ok(())
}

pub fn hrandfield(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let count = args.get(2).map(integer).transpose()?;
    let with_values = args.len() == 4 && args.is(3, "withvalues");
    if args.len() > 4 || (args.len() == 4 && !with_values) {
        return Err(SYNTAX);
    }
    let hash = context.db().get_as::<Hash>(args.at(1), now)?;
    let Some(count) = count else {
        reply.bulk_or_null(hash.and_then(|h| h.random().map(|index| &h.at(index).key[..])));
        return Ok(());
    };
    let chosen = super::sets::choose(hash.map_or(0, Hash::len), count)?;
    // RESP3 has pairs in arrays of two; RESP2 one flat array.
    let pairs = with_values && reply.resp3();
    reply.array(if with_values && !pairs { chosen.len() * 2 } else { chosen.len() });
    for entry in hash.iter().flat_map(|h| chosen.iter().map(|&index| h.at(index))) {
        if pairs {
            reply.array(2);
        }
        reply.bulk(&entry.key);
        if with_values {
            reply.bulk(&entry.value);
        }
        if reply.overflowed() {
            break;
        }
    }
    Ok(())
}
