//! The server: settings, time, memory, end.

use super::context::Context;
use super::error::{Error, Outcome, SYNTAX};
use super::{glob, keys};
use crate::config;
use crate::protocol::{Args, Reply};
use crate::store::DATABASES;

fn unknown(command: &str, word: &[u8]) -> Error {
    let name = String::from_utf8_lossy(word);
    Error::text(format!("ERR unknown subcommand '{name}'. Try {command} HELP."))
}

pub fn config(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let words = args.len();
    if args.is(1, "get") {
        if words < 3 {
            return Err(Error::arity("config|get"));
        }
        let limit = context.state.memory.limit;
        let found: Vec<_> = context
            .state
            .config
            .settings(limit)
            .into_iter()
            .filter(|(name, _)| {
                args.from(2).any(|p| glob::matches(&p.to_ascii_lowercase(), name.as_bytes()))
            })
            .collect();
        reply.map(found.len());
        for (name, value) in found {
            reply.bulk(name.as_bytes());
            reply.bulk(value.as_bytes());
        }
    } else if args.is(1, "set") {
        if words < 4 || !words.is_multiple_of(2) {
            return Err(Error::arity("config|set"));
        }
        set(context, args)?;
        reply.ok();
    } else if args.is(1, "resetstat") {
        context.state.stats = Default::default();
        reply.ok();
    } else if args.is(1, "rewrite") {
        return Err(Error::new("ERR The server is running without a config file"));
    } else {
        return Err(unknown("CONFIG", args.at(1)));
    }
    Ok(())
}

fn set(context: &mut Context<'_>, args: Args<'_>) -> Outcome {
    // All are checked before the first is set.
    let mut next = context.state.config.clone();
    let mut limit = context.state.memory.limit;
    for at in (2..args.len()).step_by(2) {
        let name = String::from_utf8_lossy(args.at(at)).to_lowercase();
        let value = String::from_utf8_lossy(args.at(at + 1));
        if !next.settings(limit).iter().any(|(known, _)| *known == name) {
            return Err(Error::text(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            )));
        }
        if name == "maxmemory" {
            limit = config::parse_memory(&value)
                .ok_or_else(|| refused(&name, "argument must be a memory value"))?;
        } else {
            next.set(&name, &value).map_err(|why| refused(&name, why))?;
        }
    }
    context.state.config = next;
    context.state.memory.limit = limit;
    Ok(())
}

fn refused(name: &str, why: &str) -> Error {
    Error::text(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

pub fn time(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    // Never earlier than the time that commands see.
    let micros = now.as_micros().max(u128::from(context.now) * 1000);
    reply.array(2);
    reply.bulk((micros / 1_000_000).to_string().as_bytes());
    reply.bulk((micros % 1_000_000).to_string().as_bytes());
    Ok(())
}

pub fn memory(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    if !args.is(1, "usage") {
        return Err(unknown("MEMORY", args.at(1)));
    }
    match args.len() {
        3 => {}
        5 if args.is(3, "samples") => {}
        2 => return Err(Error::arity("memory|usage")),
        _ => return Err(SYNTAX),
    }
    let key = args.at(2);
    match context.db().get(key, now).map(|value| value.size()) {
        None => reply.null(),
        Some(size) => reply.length(size + key.len() + 48),
    }
    Ok(())
}

pub fn lastsave(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    // Nothing is ever saved, so this is the time of the start, as in Redis.
    reply.integer((context.state.vmm.started_ms() / 1000) as i64);
    Ok(())
}

pub fn swapdb(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let index = |at: usize, text: &'static str| {
        keys::database(args.at(at)).map_err(|error| {
            if error.as_str().contains("integer") { Error::new(text) } else { error }
        })
    };
    let (first, second) =
        (index(1, "ERR invalid first DB index")?, index(2, "ERR invalid second DB index")?);
    debug_assert!(first < DATABASES && second < DATABASES);
    if let Some((a, b)) = context.state.store.two(first, second) {
        a.swap(b);
    }
    reply.ok();
    Ok(())
}

pub fn slowlog(_context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    // There is no log.
    if args.is(1, "get") {
        reply.array(0);
    } else if args.is(1, "len") {
        reply.integer(0);
    } else if args.is(1, "reset") {
        reply.ok();
    } else {
        return Err(unknown("SLOWLOG", args.at(1)));
    }
    Ok(())
}

pub fn shutdown(context: &mut Context<'_>, args: Args<'_>, _reply: &mut Reply<'_>) -> Outcome {
    if args.from(1).any(|word| {
        !["nosave", "save", "now", "force"].iter().any(|w| word.eq_ignore_ascii_case(w.as_bytes()))
    }) {
        return Err(SYNTAX);
    }
    context.state.shutdown = true;
    context.session().close = true;
    Ok(())
}
