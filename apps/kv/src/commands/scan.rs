//! SCAN and its variants: iterate over a collection in parts, while it changes.

use super::context::Context;
use super::error::{Error, Outcome, SYNTAX};
use super::glob;
use crate::protocol::number::format_g17;
use crate::protocol::{Args, Reply};
use crate::store::SortedSet;
use crate::store::value::{Hash, Set};

/// A collection up to this size is returned at once, as Redis does with those it stores compactly.
const SMALL: usize = 128;

struct Options<'a> {
    cursor: u64,
    count: usize,
    pattern: Option<&'a [u8]>,
    kind: Option<&'a [u8]>,
}

impl<'a> Options<'a> {
    /// Parses the words after the cursor, which is at `at`.
    fn parse(args: Args<'a>, at: usize, with_type: bool) -> Result<Self, Error> {
        let cursor = std::str::from_utf8(args.at(at)).ok().and_then(|text| text.parse().ok());
        let mut options = Self {
            cursor: cursor.ok_or(Error::new("ERR invalid cursor"))?,
            count: 10,
            pattern: None,
            kind: None,
        };
        let mut at = at + 1;
        while at < args.len() {
            let value = args.get(at + 1).ok_or(SYNTAX)?;
            if args.is(at, "count") {
                let count = super::context::integer(value)?;
                options.count = usize::try_from(count).ok().filter(|&n| n >= 1).ok_or(SYNTAX)?;
            } else if args.is(at, "match") {
                options.pattern = Some(value).filter(|p| *p != b"*");
            } else if with_type && args.is(at, "type") {
                options.kind = Some(value);
            } else {
                return Err(SYNTAX);
            }
            at += 2;
        }
        Ok(options)
    }

    fn matches(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }

    fn count_of(&self, len: usize) -> usize {
        if len <= SMALL { len } else { self.count }
    }
}

/// Begins a reply: the next cursor, and the number of strings.
fn begin(cursor: u64, strings: usize, reply: &mut Reply<'_>) {
    reply.array(2);
    reply.bulk(itoa::Buffer::new().format(cursor).as_bytes());
    reply.array(strings);
}

pub fn scan(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = Options::parse(args, 1, true)?;
    let now = context.now;
    let db = context.db();
    let wanted = |key: &[u8], kind: &str| {
        options.matches(key)
            && options.kind.is_none_or(|wanted| wanted.eq_ignore_ascii_case(kind.as_bytes()))
    };
    // The reply begins with the number of its keys, so all scans iterate twice: to count, and to
    // write.
    let mut count = 0;
    let next = db.scan(options.cursor, options.count, now, |key, value| {
        count += usize::from(wanted(key, value.type_name()));
    });
    begin(next, count, reply);
    db.scan(options.cursor, options.count, now, |key, value| {
        if wanted(key, value.type_name()) {
            reply.bulk(key);
        }
    });
    Ok(())
}

pub fn hscan(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = Options::parse(args, 2, false)?;
    let now = context.now;
    let Some(hash) = context.db().get_as::<Hash>(args.at(1), now)? else {
        begin(0, 0, reply);
        return Ok(());
    };
    let (size, mut found) = (options.count_of(hash.len()), 0);
    let next =
        hash.scan(options.cursor, size, |entry| found += usize::from(options.matches(&entry.key)));
    begin(next, found * 2, reply);
    hash.scan(options.cursor, size, |entry| {
        if options.matches(&entry.key) {
            reply.bulk(&entry.key);
            reply.bulk(&entry.value);
        }
    });
    Ok(())
}

pub fn sscan(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = Options::parse(args, 2, false)?;
    let now = context.now;
    let Some(set) = context.db().get_as::<Set>(args.at(1), now)? else {
        begin(0, 0, reply);
        return Ok(());
    };
    let (size, mut found) = (options.count_of(set.len()), 0);
    let next =
        set.scan(options.cursor, size, |entry| found += usize::from(options.matches(&entry.key)));
    begin(next, found, reply);
    set.scan(options.cursor, size, |entry| {
        if options.matches(&entry.key) {
            reply.bulk(&entry.key);
        }
    });
    Ok(())
}

pub fn zscan(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let options = Options::parse(args, 2, false)?;
    let now = context.now;
    let Some(set) = context.db().get_as::<SortedSet>(args.at(1), now)? else {
        begin(0, 0, reply);
        return Ok(());
    };
    let (size, mut found) = (options.count_of(set.len()), 0);
    let next =
        set.scan(options.cursor, size, |_, member| found += usize::from(options.matches(member)));
    begin(next, found * 2, reply);
    set.scan(options.cursor, size, |score, member| {
        if options.matches(member) {
            reply.bulk(member);
            reply.bulk(format_g17(score).as_bytes());
        }
    });
    Ok(())
}
