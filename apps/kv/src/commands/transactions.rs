//! MULTI and EXEC: several commands as one, or none of them if a watched key has changed.

use super::context::Context;
use super::dispatch;
use super::error::{Error, OUT_OF_MEMORY, Outcome};
use super::table;
use crate::protocol::{Args, Reply};

pub fn multi(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let session = context.session();
    if session.queue.is_some() {
        return Err(Error::new("ERR MULTI calls can not be nested"));
    }
    session.queue = Some(Vec::new());
    session.queue_failed = false;
    reply.ok();
    Ok(())
}

/// Ends the client's watches.
pub fn unwatch(context: &mut Context<'_>) {
    for (database, key, _) in std::mem::take(&mut context.session().watched) {
        context.state.store.database(database).watched().unwatch(&key);
    }
}

pub fn exec(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    let Some(queue) = context.session().queue.take() else {
        return Err(Error::new("ERR EXEC without MULTI"));
    };
    let failed = std::mem::take(&mut context.session().queue_failed);
    let watched = std::mem::take(&mut context.session().watched);
    let mut changed = false;
    for (database, key, seen) in watched {
        let db = context.state.store.database(database);
        db.find(&key, now); // A key that has expired meanwhile has changed.
        changed |= db.watched().changed(&key) != seen;
        db.watched().unwatch(&key);
    }
    if failed {
        return Err(Error::new("EXECABORT Transaction discarded because of previous errors."));
    }
    if changed {
        reply.null_array();
        return Ok(());
    }
    reply.array(queue.len());
    for request in &queue {
        let mark = reply.mark();
        let args = request.borrow();
        let done = match table::find(args.at(0)) {
            Some(command) => dispatch::run(command, context, args, reply),
            None => Err(Error::new("ERR unknown command")),
        };
        if let Err(error) = done {
            reply.truncate(mark);
            reply.error(error.as_str());
            context.state.stats.errors += 1;
        }
    }
    Ok(())
}

/// Ends a transaction whose EXEC itself was wrong.
pub fn abort(context: &mut Context<'_>, why: &Error) -> Error {
    context.session().queue = None;
    unwatch(context);
    let why = why.as_str().trim_start_matches("ERR ");
    Error::text(format!("EXECABORT Transaction discarded because of: {why}"))
}

pub fn discard(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if context.session().queue.take().is_none() {
        return Err(Error::new("ERR DISCARD without MULTI"));
    }
    unwatch(context);
    reply.ok();
    Ok(())
}

pub fn watch(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    let now = context.now;
    if context.session().queue.is_some() {
        return Err(Error::new("ERR WATCH inside MULTI is not allowed"));
    }
    if context.state.memory.is_exhausted() {
        return Err(OUT_OF_MEMORY);
    }
    let database = context.session().database;
    for key in args.from(1) {
        if context
            .session()
            .watched
            .iter()
            .any(|(db, watched, _)| *db == database && watched == key)
        {
            continue;
        }
        let db = context.db();
        db.find(key, now);
        let seen = db.watched().watch(key);
        context.session().watched.push((database, key.to_vec(), seen));
    }
    reply.ok();
    Ok(())
}

pub fn unwatch_all(context: &mut Context<'_>, _args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    unwatch(context);
    reply.ok();
    Ok(())
}
