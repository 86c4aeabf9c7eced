//! From a request to its reply: finds the command, checks whether it may run now, runs or queues
//! it.

use super::context::{Context, ReplyMode};
use super::error::{Error, OUT_OF_MEMORY};
use super::table::{self, AT_ONCE, Command, GROWS};
use super::transactions;
use crate::protocol::{Args, Reply};

/// Executes one request of a client.
pub fn execute(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) {
    let mark = reply.mark();
    if let Err(error) = admit(context, args, reply) {
        // A command checks before it writes; if one does not, its partial reply is removed.
        reply.truncate(mark);
        reply.error(error.as_str());
        context.state.stats.errors += 1;
    }
    let session = context.session();
    match session.reply_mode {
        ReplyMode::On => {}
        ReplyMode::Off => reply.truncate(mark),
        ReplyMode::SkipNext => {
            reply.truncate(mark);
            session.reply_mode = ReplyMode::Skip;
        }
        ReplyMode::Skip => {
            reply.truncate(mark);
            session.reply_mode = ReplyMode::On;
        }
    }
}

/// Answers a request that was too large to keep.
pub fn refuse_too_large(context: &mut Context<'_>, reply: &mut Reply<'_>) {
    let session = context.session();
    session.queue_failed |= session.queue.is_some();
    context.state.stats.errors += 1;
    reply.error(OUT_OF_MEMORY.as_str());
}

fn admit(context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<(), Error> {
    let checked = check(context, args);
    let exhausted = context.state.memory.is_exhausted();
    let session = context.session();
    let command = match checked {
        Ok(command) => command,
        Err(error) if args.is(0, "exec") => return Err(transactions::abort(context, &error)),
        Err(error) => {
            session.queue_failed |= session.queue.is_some();
            return Err(error);
        }
    };
    session.command = command.name;
    if command.flags & AT_ONCE == 0
        && let Some(queue) = &mut session.queue
    {
        if exhausted {
            session.queue_failed = true;
            return Err(OUT_OF_MEMORY);
        }
        queue.push(args.into());
        reply.raw(b"+QUEUED\r\n");
        return Ok(());
    }
    run(command, context, args, reply)
}

/// Runs a command that may run.
pub fn run(
    command: &Command,
    context: &mut Context<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<(), Error> {
    context.state.stats.commands += 1;
    (command.run)(context, args, reply)
}

/// The command, if it may run.
pub fn check(context: &mut Context<'_>, args: Args<'_>) -> Result<&'static Command, Error> {
    let command = table::find(args.at(0)).ok_or_else(|| unknown(args))?;
    if !command.takes(args.len()) {
        return Err(Error::arity(command.name));
    }
    if command.flags & GROWS != 0 && context.state.memory.is_short() {
        return Err(OUT_OF_MEMORY);
    }
    Ok(command)
}

fn unknown(args: Args<'_>) -> Error {
    const SHOWN: usize = 128;
    let show = |word: &[u8], room: usize| {
        String::from_utf8_lossy(&word[..word.len().min(room)]).into_owned()
    };
    let mut text =
        format!("ERR unknown command '{}', with args beginning with: ", show(args.at(0), SHOWN));
    let mut shown = 0;
    for word in args.from(1) {
        if shown >= SHOWN {
            break;
        }
        let word = show(word, SHOWN - shown);
        shown += word.len() + 3;
        text.push_str(&format!("'{word}' "));
    }
    Error::text(text)
}
