//! Commands on keys, for values of any type.

use super::context::{Context, integer};
use super::error::{Error, NO_SUCH_KEY, Outcome, SYNTAX};
use super::glob;
use crate::protocol::{Args, Reply};
use crate::store::DATABASES;

pub fn del(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let db = context.db();
    reply.length(args.from(1).filter(|key| db.remove(key, now).is_some()).count());
    Ok(())
}

pub fn exists(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let mut count = 0;
    for key in args.from(1) {
        let found = context.db().find(key, now).is_some();
        context.looked_up(found);
        count += usize::from(found);
    }
    reply.length(count);
    Ok(())
}

pub fn type_of(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.simple(context.db().get(args.at(1), now).map_or("none", |value| value.type_name()));
    Ok(())
}

fn rename_key(context: &mut Context<'_>, args: Args<'_>, overwrite: bool) -> Result<bool, Error> {
    let (from, to, now) = (args.at(1), args.at(2), context.now);
    let db = context.db();
    if db.find(from, now).is_none() {
        return Err(NO_SUCH_KEY);
    }
    if from == to {
        return Ok(overwrite);
    }
    if !overwrite && db.find(to, now).is_some() {
        return Ok(false);
    }
    if let Some((value, expires)) = db.remove(from, now) {
        db.set(to, value);
        db.expire(to, expires);
    }
    Ok(true)
}

pub fn rename(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    rename_key(context, args, true)?;
    reply.ok();
    Ok(())
}

pub fn renamenx(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.flag(rename_key(context, args, false)?);
    Ok(())
}

/// Parses the number of a database.
pub fn database(word: &[u8]) -> Result<usize, Error> {
    let index = integer(word)?;
    usize::try_from(index)
        .ok()
        .filter(|&i| i < DATABASES)
        .ok_or(Error::new("ERR DB index is out of range"))
}

pub fn copy(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (from, to, now) = (args.at(1), args.at(2), context.now);
    let source = context.session().database;
    let (mut target, mut replace, mut at) = (source, false, 3);
    while at < args.len() {
        if args.is(at, "replace") {
            replace = true;
        } else if args.is(at, "db") && at + 1 < args.len() {
            target = database(args.at(at + 1))?;
            at += 1;
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    if source == target && from == to {
        return Err(Error::new("ERR source and destination objects are the same"));
    }
    let db = context.state.store.database(source);
    let Some(index) = db.find(from, now) else {
        reply.flag(false);
        return Ok(());
    };
    let expires = db.expires_at(index);
    let size = db.get(from, now).map_or(0, |value| value.size());
    context.need_memory(size)?;
    if !replace && context.state.store.database(target).find(to, now).is_some() {
        reply.flag(false);
        return Ok(());
    }
    let value = context.state.store.database(source).get(from, now).map(|value| value.duplicate());
    if let Some(value) = value {
        let db = context.state.store.database(target);
        db.set(to, value);
        db.expire(to, expires);
    }
    reply.flag(true);
    Ok(())
}

pub fn move_key(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    let source = context.session().database;
    let target = database(args.at(2))?;
    let Some((from, to)) = context.state.store.two(source, target) else {
        return Err(Error::new("ERR source and destination objects are the same"));
    };
    let free = to.find(key, now).is_none();
    let moved = if free { from.remove(key, now) } else { None };
    reply.flag(moved.is_some());
    if let Some((value, expires)) = moved {
        to.set(key, value);
        to.expire(key, expires);
    }
    Ok(())
}

pub fn keys(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (pattern, now) = (args.at(1), context.now);
    let db = context.db();
    let found = || db.iter(now).filter(|(key, _)| glob::matches(pattern, key));
    reply.array(found().count());
    found().for_each(|(key, _)| reply.bulk(key));
    Ok(())
}

pub fn randomkey(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.bulk_or_null(context.db().random(now));
    Ok(())
}

pub fn dbsize(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.length(context.db().len());
    Ok(())
}

/// FLUSHALL and FLUSHDB accept SYNC or ASYNC, without a difference.
fn check_flush(args: Args<'_>) -> Outcome {
    match args.len() {
        1 => Ok(()),
        2 if args.is(1, "sync") || args.is(1, "async") => Ok(()),
        _ => Err(SYNTAX),
    }
}

pub fn flushall(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_flush(args)?;
    context.state.store.databases().for_each(|db| db.clear());
    reply.ok();
    Ok(())
}

pub fn flushdb(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    check_flush(args)?;
    context.db().clear();
    reply.ok();
    Ok(())
}

pub fn object(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let known = ["encoding", "refcount", "idletime", "freq"].iter().any(|name| args.is(1, name));
    if !known {
        let name = String::from_utf8_lossy(args.at(1));
        return Err(Error::text(format!("ERR unknown subcommand '{name}'. Try OBJECT HELP.")));
    }
    if args.len() != 3 {
        return Err(Error::arity(&format!(
            "object|{}",
            String::from_utf8_lossy(args.at(1)).to_lowercase()
        )));
    }
    if args.is(1, "freq") {
        return Err(Error::new(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. \
             Please note that when switching between policies at runtime LRU and LFU data will \
             take some time to adjust.",
        ));
    }
    match context.db().get(args.at(2), now) {
        None => reply.null(),
        Some(value) if args.is(1, "encoding") => reply.bulk(value.encoding().as_bytes()),
        Some(_) if args.is(1, "refcount") => reply.integer(1),
        Some(_) => reply.integer(0),
    }
    Ok(())
}
