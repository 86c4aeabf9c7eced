//! Sorted sets, by member.

use super::context::{Context, float, integer};
use super::error::{Error, NOT_POSITIVE, Outcome, SYNTAX};
use crate::protocol::{Args, Reply};
use crate::store::SortedSet;

const NAN: Error = Error::new("ERR resulting score is not a number (NaN)");

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
struct Rules {
    only_new: bool,
    only_old: bool,
    only_greater: bool,
    only_less: bool,
    count_changed: bool,
    increment: bool,
}

/// The effect on a member.
enum Change {
    Refused,
    Kept(f64),
    Added(f64),
    Updated(f64),
}

fn apply(set: &mut SortedSet, member: &[u8], score: f64, rules: Rules) -> Result<Change, Error> {
    // Normalizes -0 to 0.
    let score = score + 0.0;
    let Some(old) = set.score(member) else {
        if rules.only_old {
            return Ok(Change::Refused);
        }
        set.insert(member, score);
        return Ok(Change::Added(score));
    };
    if rules.only_new {
        return Ok(Change::Refused);
    }
    let score = if rules.increment { old + score } else { score };
    if score.is_nan() {
        return Err(NAN);
    }
    if (rules.only_greater && score <= old) || (rules.only_less && score >= old) {
        return Ok(Change::Refused);
    }
    if score == old {
        return Ok(Change::Kept(score));
    }
    set.insert(member, score);
    Ok(Change::Updated(score))
}

fn add(
    context: &mut Context<'_>,
    args: Args<'_>,
    mut at: usize,
    rules: Rules,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    let pairs = args.len() - at;
    if pairs == 0 || !pairs.is_multiple_of(2) {
        return Err(SYNTAX);
    }
    if rules.only_new && rules.only_old {
        return Err(Error::new("ERR XX and NX options at the same time are not compatible"));
    }
    if (rules.only_greater && rules.only_less)
        || (rules.only_new && (rules.only_greater || rules.only_less))
    {
        return Err(Error::new(
            "ERR GT, LT, and/or NX options at the same time are not compatible",
        ));
    }
    if rules.increment && pairs > 2 {
        return Err(Error::new("ERR INCR option supports a single increment-element pair"));
    }
    // All scores are checked before the first is set.
    for score in args.from(at).step_by(2) {
        float(score)?;
    }
    let db = context.db();
    if rules.only_old && db.get_as::<SortedSet>(key, now)?.is_none() {
        if rules.increment {
            reply.null()
        } else {
            reply.integer(0)
        }
        return Ok(());
    }
    let result = db.change_or_create::<SortedSet, _>(key, now, |set| {
        let (mut added, mut updated, mut last) = (0, 0, None);
        while at < args.len() {
            last = match apply(set, args.at(at + 1), float(args.at(at))?, rules)? {
                Change::Refused => None,
                Change::Kept(score) => Some(score),
                Change::Added(score) => {
                    added += 1;
                    Some(score)
                }
                Change::Updated(score) => {
                    updated += 1;
                    Some(score)
                }
            };
            at += 2;
        }
        Ok::<_, Error>((added, updated, last))
    })?;
    let (added, updated, last) = result?;
    if rules.increment {
        reply_score(last, reply);
    } else {
        reply.integer(if rules.count_changed { added + updated } else { added });
    }
    Ok(())
}

pub fn zadd(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (mut rules, mut at) = (Rules::default(), 2);
    while let Some(word) = args.get(at) {
        match word.to_ascii_lowercase().as_slice() {
            b"nx" => rules.only_new = true,
            b"xx" => rules.only_old = true,
            b"gt" => rules.only_greater = true,
            b"lt" => rules.only_less = true,
            b"ch" => rules.count_changed = true,
            b"incr" => rules.increment = true,
            _ => break,
        }
        at += 1;
    }
    add(context, args, at, rules, reply)
}

pub fn zincrby(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    add(context, args, 2, Rules { increment: true, ..Rules::default() }, reply)
}

pub fn zrem(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let removed = context.db().change::<SortedSet, _>(args.at(1), now, |set| {
        args.from(2).filter(|member| set.remove(member).is_some()).count()
    })?;
    reply.length(removed.unwrap_or(0));
    Ok(())
}

fn reply_score(score: Option<f64>, reply: &mut Reply<'_>) {
    match score {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
}

pub fn zscore(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let set = context.db().get_as::<SortedSet>(args.at(1), now)?;
    reply_score(set.and_then(|set| set.score(args.at(2))), reply);
    Ok(())
}

pub fn zmscore(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let set = context.db().get_as::<SortedSet>(args.at(1), now)?;
    reply.array(args.len() - 2);
    args.from(2).for_each(|member| reply_score(set.and_then(|set| set.score(member)), reply));
    Ok(())
}

pub fn zcard(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    reply.length(context.db().get_as::<SortedSet>(args.at(1), now)?.map_or(0, SortedSet::len));
    Ok(())
}

fn rank(
    context: &mut Context<'_>,
    args: Args<'_>,
    reverse: bool,
    reply: &mut Reply<'_>,
) -> Outcome {
    let now = context.now;
    let set = context.db().get_as::<SortedSet>(args.at(1), now)?;
    match set.and_then(|set| Some((set.rank(args.at(2))?, set.len()))) {
        None => reply.null(),
        Some((rank, len)) => reply.length(if reverse { len - 1 - rank } else { rank }),
    }
    Ok(())
}

pub fn zrank(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    rank(context, args, false, reply)
}

pub fn zrevrank(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    rank(context, args, true, reply)
}

fn pop(context: &mut Context<'_>, args: Args<'_>, highest: bool, reply: &mut Reply<'_>) -> Outcome {
    let (key, now) = (args.at(1), context.now);
    if args.len() > 3 {
        return Err(SYNTAX);
    }
    let count = match args.get(2) {
        None => 1,
        Some(word) => {
            integer(word).ok().and_then(|n| usize::try_from(n).ok()).ok_or(NOT_POSITIVE)?
        }
    };
    let count = count.min(context.db().get_as::<SortedSet>(key, now)?.map_or(0, SortedSet::len));
    // With a count, RESP3 has an array of pairs; without, or in RESP2, it is flat.
    let pairs = reply.resp3() && args.len() == 3;
    reply.array(if pairs { count } else { count * 2 });
    if count == 0 {
        return Ok(());
    }
    context.db().change::<SortedSet, _>(key, now, |set| {
        for _ in 0..count {
            let rank = if highest { set.len() - 1 } else { 0 };
            if let Some((score, member)) = set.remove_rank(rank) {
                if pairs {
                    reply.array(2);
                }
                reply.bulk(&member);
                reply.double(score);
            }
        }
    })?;
    Ok(())
}

pub fn zpopmin(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(context, args, false, reply)
}

pub fn zpopmax(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    pop(context, args, true, reply)
}
