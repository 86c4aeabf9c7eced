//! Sets.

use super::context::{Context, integer};
use super::error::{Error, NOT_POSITIVE, Outcome, SYNTAX};
use crate::protocol::{Args, Reply};
use crate::store::value::Set;
use crate::store::{Dict, Value};

pub fn sadd(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let added = context.db().change_or_create::<Set, _>(args.at(1), now, |set| {
        args.from(2).filter(|member| set.insert(member, ()).is_none()).count()
    })?;
    reply.length(added);
    Ok(())
}

pub fn srem(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let removed = context.db().change::<Set, _>(args.at(1), now, |set| {
        args.from(2).filter(|member| set.remove(member).is_some()).count()
    })?;
    reply.length(removed.unwrap_or(0));
    Ok(())
}

pub fn sismember(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.flag(
        context.db().get_as::<Set>(args.at(1), now)?.is_some_and(|set| set.contains(args.at(2))),
    );
    Ok(())
}

pub fn smismember(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let set = context.db().get_as::<Set>(args.at(1), now)?;
    reply.array(args.len() - 2);
    args.from(2).for_each(|member| reply.flag(set.is_some_and(|set| set.contains(member))));
    Ok(())
}

pub fn smembers(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let set = context.db().get_as::<Set>(args.at(1), now)?;
    reply.set(set.map_or(0, Set::len));
    set.iter().flat_map(|set| set.iter()).for_each(|entry| reply.bulk(&entry.key));
    Ok(())
}

pub fn scard(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.length(context.db().get_as::<Set>(args.at(1), now)?.map_or(0, Set::len));
    Ok(())
}

pub fn spop(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    if args.len() > 3 {
        return Err(SYNTAX);
    }
    let pop = |set: &mut Set| set.random().map(|index| set.remove_at(index).key);
    let Some(count) = args.get(2) else {
        let member = context.db().change::<Set, _>(key, now, pop)?.flatten();
        reply.bulk_or_null(member.as_deref());
        return Ok(());
    };
    let count = integer(count).ok().and_then(|n| usize::try_from(n).ok()).ok_or(NOT_POSITIVE)?;
    let count = count.min(context.db().get_as::<Set>(key, now)?.map_or(0, Set::len));
    reply.set(count);
    if count > 0 {
        context.db().change::<Set, _>(key, now, |set| {
            (0..count).filter_map(|_| pop(set)).for_each(|member| reply.bulk(&member));
        })?;
    }
    Ok(())
}

/// More random elements than this, with repetition, are refused: they would fill all memory.
const MAX_REPEATED: i64 = 1 << 16;

/// Indices of `count` random elements out of `len`: distinct ones, or possibly repeated ones if
/// `count` is negative.
///
/// # Errors
/// `count` is negative and too large.
pub fn choose(len: usize, count: i64) -> Result<Vec<usize>, Error> {
    if count < -MAX_REPEATED {
        return Err(Error::new("ERR value is out of range"));
    }
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if len == 0 {
        return Ok(Vec::new());
    }
    if count < 0 {
        return Ok((0..wanted).map(|_| fastrand::usize(..len)).collect());
    }
    if wanted >= len {
        return Ok((0..len).collect());
    }
    if wanted > len / 4 {
        let mut all: Vec<usize> = (0..len).collect();
        fastrand::shuffle(&mut all);
        all.truncate(wanted);
        return Ok(all);
    }
    let mut chosen = std::collections::HashSet::new();
    while chosen.len() < wanted {
        chosen.insert(fastrand::usize(..len));
    }
    Ok(chosen.into_iter().collect())
}

pub fn srandmember(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    if args.len() > 3 {
        return Err(SYNTAX);
    }
    let count = args.get(2).map(integer).transpose()?;
    let set = context.db().get_as::<Set>(args.at(1), now)?;
    let Some(count) = count else {
        reply.bulk_or_null(set.and_then(|s| s.random().map(|index| &s.at(index).key[..])));
        return Ok(());
    };
    let chosen = choose(set.map_or(0, Set::len), count)?;
    reply.array(chosen.len());
    set.iter()
        .flat_map(|set| chosen.iter().map(|&index| set.at(index)))
        .for_each(|entry| reply.bulk(&entry.key));
    Ok(())
}

pub fn smove(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (source, target, member, now) = (args.at(1), args.at(2), args.at(3), context.now);
    let db = context.db();
    let there = db.get_as::<Set>(source, now)?.map(|set| set.contains(member));
    if there.is_some() {
        db.get_as::<Set>(target, now)?;
    }
    if there == Some(true) && source != target {
        db.change::<Set, _>(source, now, |set| set.remove(member))?;
        db.change_or_create::<Set, _>(target, now, |set| set.insert(member, ()))?;
    }
    reply.flag(there == Some(true));
    Ok(())
}

/// An operation on several sets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    Intersection,
    Union,
    Difference,
}

/// Approximate cost of a member of a result.
const BYTES_PER_MEMBER: usize = 64;

/// Combines the sets of the keys from word `first` on.
fn combine(
    context: &mut Context<'_>,
    args: Args<'_>,
    first: usize,
    operation: Operation,
) -> Result<Set, Error> {
    let now = context.now;
    let db = context.db();
    // All types are checked, whatever the result.
    let mut members = 0;
    for key in args.from(first) {
        members += db.get_as::<Set>(key, now)?.map_or(0, Set::len);
    }
    context.need_memory(members * BYTES_PER_MEMBER)?;
    let db = context.db();
    let mut result: Set = Dict::new();
    for (n, key) in args.from(first).enumerate() {
        let set = db.get_as::<Set>(key, now)?;
        if n == 0 || operation == Operation::Union {
            for entry in set.iter().flat_map(|set| set.iter()) {
                result.insert(&entry.key, ());
            }
        } else {
            let keep = |member: &[u8]| {
                set.is_some_and(|set| set.contains(member))
                    == (operation == Operation::Intersection)
            };
            let gone: Vec<_> =
                result.iter().filter(|e| !keep(&e.key)).map(|e| e.key.clone()).collect();
            for member in &gone {
                result.remove(member);
            }
        }
    }
    Ok(result)
}

fn reply_combined(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    reply: &mut Reply<'_>,
) -> Outcome {
    let result = combine(context, args, 1, operation)?;
    reply.set(result.len());
    result.iter().for_each(|entry| reply.bulk(&entry.key));
    Ok(())
}

fn store_combined(
    context: &mut Context<'_>,
    args: Args<'_>,
    operation: Operation,
    reply: &mut Reply<'_>,
) -> Outcome {
    let result = combine(context, args, 2, operation)?;
    let now = context.now;
    reply.length(result.len());
    if result.is_empty() {
        context.db().remove(args.at(1), now);
    } else {
        context.db().set(args.at(1), Value::Set(Box::new(result)));
    }
    Ok(())
}

pub fn sinter(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_combined(context, args, Operation::Intersection, reply)
}

pub fn sunion(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_combined(context, args, Operation::Union, reply)
}

pub fn sdiff(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply_combined(context, args, Operation::Difference, reply)
}

pub fn sinterstore(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    store_combined(context, args, Operation::Intersection, reply)
}

pub fn sunionstore(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    store_combined(context, args, Operation::Union, reply)
}

pub fn sdiffstore(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    store_combined(context, args, Operation::Difference, reply)
}
