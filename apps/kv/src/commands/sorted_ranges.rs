//! Sorted sets, by rank and by score.

use super::context::{Context, integer, range};
use super::error::{Error, Outcome, SYNTAX};
use crate::protocol::number::parse_f64;
use crate::protocol::{Args, Reply};
use crate::store::SortedSet;
use std::ops::Range;

/// One end of a range of scores: `5`, or `(5` without 5 itself.
#[derive(Clone, Copy)]
struct Bound {
    score: f64,
    exclusive: bool,
}

impl Bound {
    fn parse(word: &[u8]) -> Result<Self, Error> {
        let (exclusive, number) = match word {
            [b'(', rest @ ..] => (true, rest),
            all => (false, all),
        };
        let score = parse_f64(number).ok_or(Error::new("ERR min or max is not a float"))?;
        Ok(Self { score, exclusive })
    }
}

/// The ranks of the elements between the bounds.
fn ranks(set: &SortedSet, min: Bound, max: Bound) -> Range<usize> {
    let start = set.count_below(min.score, min.exclusive);
    let end = set.count_below(max.score, !max.exclusive);
    start..end.max(start)
}

pub fn zcount(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let (min, max, now) = (Bound::parse(args.at(2))?, Bound::parse(args.at(3))?, context.now);
    let set = context.db().get_as::<SortedSet>(args.at(1), now)?;
    reply.length(set.map_or(0, |set| ranks(set, min, max).len()));
    Ok(())
}

/// A query: which elements, in which order, and with scores or not.
#[derive(Clone, Copy, Default)]
struct Query {
    by_score: bool,
    reverse: bool,
    with_scores: bool,
    limit: Option<(i64, i64)>,
}

/// Answers a query whose two bounds are words 2 and 3.
fn query(
    context: &mut Context<'_>,
    args: Args<'_>,
    query: Query,
    reply: &mut Reply<'_>,
) -> Outcome {
    let now = context.now;
    let (first, second) = (args.at(2), args.at(3));
    let mut by_rank = (0, 0);
    let mut by_score = None;
    if query.by_score {
        let (min, max) = if query.reverse { (second, first) } else { (first, second) };
        by_score = Some((Bound::parse(min)?, Bound::parse(max)?));
    } else {
        by_rank = (integer(first)?, integer(second)?);
    }
    let Some(set) = context.db().get_as::<SortedSet>(args.at(1), now)? else {
        reply.array(0);
        return Ok(());
    };
    let mut found = match by_score {
        Some((min, max)) => ranks(set, min, max),
        None => {
            let r = range(by_rank.0, by_rank.1, set.len());
            if query.reverse && !r.is_empty() { set.len() - r.end..set.len() - r.start } else { r }
        }
    };
    if let Some((offset, count)) = query.limit {
        let skipped = usize::try_from(offset).unwrap_or(usize::MAX).min(found.len());
        let kept = usize::try_from(count).unwrap_or(usize::MAX).min(found.len() - skipped);
        found = if query.reverse {
            found.end - skipped - kept..found.end - skipped
        } else {
            found.start + skipped..found.start + skipped + kept
        };
    }
    let pairs = query.with_scores && reply.resp3();
    reply.array(if query.with_scores && !pairs { found.len() * 2 } else { found.len() });
    let mut element = |(score, member): (f64, &[u8])| {
        if pairs {
            reply.array(2);
        }
        reply.bulk(member);
        if query.with_scores {
            reply.double(score);
        }
    };
    if query.reverse {
        set.range(found).rev().for_each(element)
    } else {
        set.range(found).for_each(&mut element)
    }
    Ok(())
}

/// Parses the options after the bounds: all of them for ZRANGE, some for the older commands.
fn options(args: Args<'_>, mut query: Query, unified: bool) -> Result<Query, Error> {
    let mut at = 4;
    while at < args.len() {
        if args.is(at, "withscores") {
            query.with_scores = true;
        } else if args.is(at, "limit") && at + 2 < args.len() {
            query.limit = Some((integer(args.at(at + 1))?, integer(args.at(at + 2))?));
            at += 2;
        } else if unified && args.is(at, "byscore") {
            query.by_score = true;
        } else if unified && args.is(at, "rev") {
            query.reverse = true;
        } else if unified && args.is(at, "bylex") {
            return Err(Error::new("ERR BYLEX is not supported by this server"));
        } else {
            return Err(SYNTAX);
        }
        at += 1;
    }
    if query.limit.is_some() && !query.by_score {
        return Err(Error::new(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        ));
    }
    Ok(query)
}

pub fn zrange(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    query(context, args, options(args, Query::default(), true)?, reply)
}

pub fn zrevrange(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    query(context, args, options(args, Query { reverse: true, ..Query::default() }, false)?, reply)
}

pub fn zrangebyscore(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    query(context, args, options(args, Query { by_score: true, ..Query::default() }, false)?, reply)
}

pub fn zrevrangebyscore(
    context: &mut Context<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Outcome {
    query(
        context,
        args,
        options(args, Query { by_score: true, reverse: true, ..Query::default() }, false)?,
        reply,
    )
}

fn remove(
    context: &mut Context<'_>,
    key: &[u8],
    reply: &mut Reply<'_>,
    ranks: impl Fn(&SortedSet) -> Range<usize>,
) -> Outcome {
    let now = context.now;
    let removed = context.db().change::<SortedSet, _>(key, now, |set| {
        let ranks = ranks(set);
        ranks.clone().filter(|_| set.remove_rank(ranks.start).is_some()).count()
    })?;
    reply.length(removed.unwrap_or(0));
    Ok(())
}

pub fn zremrangebyrank(
    context: &mut Context<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
    remove(context, args.at(1), reply, |set| range(start, end, set.len()))
}

pub fn zremrangebyscore(
    context: &mut Context<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Outcome {
    let (min, max) = (Bound::parse(args.at(2))?, Bound::parse(args.at(3))?);
    remove(context, args.at(1), reply, |set| ranks(set, min, max))
}
