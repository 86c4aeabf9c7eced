//! Commands on the connection itself.

use super::context::{Context, ReplyMode, Session, integer};
use super::error::{Error, Outcome, SYNTAX};
use super::{keys, transactions};
use crate::config::REDIS_VERSION;
use crate::protocol::{Args, Reply};

pub fn ping(_context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match args.len() {
        1 => reply.simple("PONG"),
        2 => reply.bulk(args.at(1)),
        _ => return Err(Error::arity("ping")),
    }
    Ok(())
}

pub fn echo(_context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    reply.bulk(args.at(1));
    Ok(())
}

pub fn quit(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    context.session().close = true;
    reply.ok();
    Ok(())
}

pub fn select(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    context.session().database = keys::database(args.at(1))?;
    reply.ok();
    Ok(())
}

const WRONG_PASSWORD: Error =
    Error::new("WRONGPASS invalid username-password pair or user is disabled.");

/// There is one user, `default`, who needs no password, so that any password is right.
fn check_user(user: &[u8]) -> Outcome {
    if user == b"default" { Ok(()) } else { Err(WRONG_PASSWORD) }
}

pub fn auth(_context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    match args.len() {
        2 => Err(Error::new(
            "ERR AUTH <password> called without any password configured for the default user. \
             Are you sure your configuration is correct?",
        )),
        3 => {
            check_user(args.at(1))?;
            reply.ok();
            Ok(())
        }
        _ => Err(SYNTAX),
    }
}

fn check_name(name: &[u8]) -> Outcome {
    if name.iter().all(|c| (b'!'..=b'~').contains(c)) {
        return Ok(());
    }
    Err(Error::new("ERR Client names cannot contain spaces, newlines or special characters."))
}

pub fn hello(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let mut resp3 = context.session().resp3;
    let mut name = None;
    if let Some(word) = args.get(1) {
        let version = integer(word)
            .map_err(|_| Error::new("ERR Protocol version is not an integer or out of range"))?;
        resp3 = match version {
            2 => false,
            3 => true,
            _ => return Err(Error::new("NOPROTO unsupported protocol version")),
        };
    }
    let mut at = 2;
    while at < args.len() {
        if args.is(at, "auth") && at + 2 < args.len() {
            check_user(args.at(at + 1))?;
            at += 3;
        } else if args.is(at, "setname") && at + 1 < args.len() {
            check_name(args.at(at + 1))?;
            name = Some(args.at(at + 1).to_vec());
            at += 2;
        } else {
            let option = String::from_utf8_lossy(args.at(at));
            return Err(Error::text(format!("ERR Syntax error in HELLO option '{option}'")));
        }
    }
    let session = context.session();
    session.resp3 = resp3;
    if let Some(name) = name {
        session.name = name;
    }
    reply.set_resp3(resp3);
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(context.session().id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    Ok(())
}

pub fn reset(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    transactions::unwatch(context);
    let session = context.session();
    let fresh = Session::new(session.id, session.peer, session.local, session.since);
    *session = Session { active: session.active, command: session.command, ..fresh };
    reply.set_resp3(false);
    reply.simple("RESET");
    Ok(())
}

/// A line of CLIENT LIST.
fn describe(session: &Session, now: u64) -> String {
    let Session {
        id,
        peer,
        local,
        name,
        resp3,
        database,
        queue,
        watched,
        since,
        active,
        command,
        ..
    } = session;
    let flags = if queue.is_some() { "x" } else { "N" };
    format!(
        "id={id} addr={peer} laddr={local} fd=0 name={} age={} idle={} flags={flags} db={database} \
         sub=0 psub=0 ssub=0 \
         multi={} watch={} cmd={command} user=default redir=-1 resp={}",
        String::from_utf8_lossy(name),
        now.saturating_sub(*since) / 1000,
        now.saturating_sub(*active) / 1000,
        queue.as_ref().map_or(-1, |queue| queue.len() as i64),
        watched.len(),
        if *resp3 { 3 } else { 2 },
    )
}

pub fn client(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let name = args.at(1).to_ascii_lowercase();
    let name = String::from_utf8_lossy(&name);
    let words = args.len();
    let arity =
        |right: bool| if right { Ok(()) } else { Err(Error::arity(&format!("client|{name}"))) };
    let now = context.now;
    match &*name {
        "id" => {
            arity(words == 2)?;
            reply.integer(context.session().id as i64);
        }
        "getname" => {
            arity(words == 2)?;
            let name = &context.session().name;
            reply.bulk_or_null((!name.is_empty()).then_some(&name[..]));
        }
        "setname" => {
            arity(words == 3)?;
            check_name(args.at(2))?;
            context.session().name = args.at(2).to_vec();
            reply.ok();
        }
        "setinfo" => {
            // Newer clients report their name and version; both are ignored.
            arity(words == 4)?;
            reply.ok();
        }
        "info" => {
            arity(words == 2)?;
            let text = describe(context.session(), now) + "\n";
            reply.verbatim(&text);
        }
        "list" => {
            let text: String =
                context.state.sessions.iter().map(|(_, s)| describe(s, now) + "\n").collect();
            reply.verbatim(&text);
        }
        "reply" => {
            arity(words == 3)?;
            let session = context.session();
            match args.at(2).to_ascii_lowercase().as_slice() {
                b"on" => {
                    session.reply_mode = ReplyMode::On;
                    reply.ok();
                }
                b"off" => session.reply_mode = ReplyMode::Off,
                b"skip" if session.reply_mode == ReplyMode::On => {
                    session.reply_mode = ReplyMode::SkipNext
                }
                b"skip" => {}
                _ => return Err(SYNTAX),
            }
        }
        "kill" => {
            arity(words >= 3)?;
            kill(context, args, reply)?;
        }
        "no-evict" | "no-touch" => {
            arity(words == 3)?;
            if !args.is(2, "on") && !args.is(2, "off") {
                return Err(SYNTAX);
            }
            reply.ok();
        }
        _ => {
            let name = String::from_utf8_lossy(args.at(1)).into_owned();
            return Err(Error::text(format!("ERR unknown subcommand '{name}'. Try CLIENT HELP.")));
        }
    }
    Ok(())
}

fn kill(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let me = context.client;
    let word = |at: usize| String::from_utf8_lossy(args.at(at)).into_owned();
    // The old form has an address. The new one has filters, which all must match, and by default
    // skips the caller.
    let (old, mut address, mut id, mut spare_me) = (args.len() == 3, None, None, args.len() > 3);
    if old {
        address = Some(word(2));
    } else {
        if !args.len().is_multiple_of(2) {
            return Err(SYNTAX);
        }
        for at in (2..args.len()).step_by(2) {
            match args.at(at).to_ascii_lowercase().as_slice() {
                b"addr" => address = Some(word(at + 1)),
                b"id" => {
                    let n = integer(args.at(at + 1))
                        .ok()
                        .and_then(|n| u64::try_from(n).ok())
                        .filter(|&n| n > 0);
                    id = Some(n.ok_or(Error::new("ERR client-id should be greater than 0"))?);
                }
                b"skipme" if args.is(at + 1, "yes") => spare_me = true,
                b"skipme" if args.is(at + 1, "no") => spare_me = false,
                b"type" if args.is(at + 1, "normal") => {}
                _ => return Err(SYNTAX),
            }
        }
    }
    let matching: Vec<(usize, u64)> = context
        .state
        .sessions
        .iter()
        .filter(|(_, s)| address.as_ref().is_none_or(|a| s.peer.to_string() == *a))
        .filter(|(number, s)| id.is_none_or(|id| s.id == id) && !(spare_me && *number == me))
        .map(|(number, s)| (number, s.id))
        .collect();
    let count = matching.len();
    if old && count == 0 {
        return Err(Error::new("ERR No such client"));
    }
    for (number, id) in matching {
        if number == me {
            context.session().close = true;
        } else {
            context.state.kills.push((number, id));
        }
    }
    if old {
        reply.ok()
    } else {
        reply.length(count)
    }
    Ok(())
}
