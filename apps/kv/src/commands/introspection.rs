//! COMMAND: lists the commands.

use super::context::Context;
use super::error::{Error, Outcome};
use super::table::{self, ADMIN, COMMANDS, Command, FAST, GROWS, READ, WRITE};
use crate::protocol::{Args, Reply};

fn describe(command: &Command, reply: &mut Reply<'_>) {
    let flags = [
        (WRITE, "write"),
        (READ, "readonly"),
        (GROWS, "denyoom"),
        (ADMIN, "admin"),
        (FAST, "fast"),
    ];
    let flags: Vec<_> = flags.into_iter().filter(|(flag, _)| command.flags & flag != 0).collect();
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(command.arity.into());
    reply.set(flags.len());
    flags.iter().for_each(|(_, name)| reply.simple(name));
    let (first, last, step) = command.keys;
    [first, last, step].into_iter().for_each(|n| reply.integer(n.into()));
    // Categories, tips, key specifications and subcommands are empty.
    (0..4).for_each(|_| reply.array(0));
}

/// The keys among the words of a request.
fn keys<'a>(args: Args<'a>) -> Result<Vec<&'a [u8]>, Error> {
    let command = table::find(args.at(2)).ok_or(Error::new("ERR Invalid command specified"))?;
    let words = args.len() - 2;
    if !command.takes(words) {
        return Err(Error::new("ERR Invalid number of arguments specified for command"));
    }
    let (first, last, step) = command.keys;
    if first == 0 {
        return Err(Error::new("ERR The command has no key arguments"));
    }
    let last = if last < 0 { words as i32 + last } else { last };
    Ok((first..=last).step_by(step as usize).map(|at| args.at(at as usize + 2)).collect())
}

pub fn command(_context: &mut Context<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Outcome {
    if args.len() == 1 {
        reply.array(COMMANDS.len());
        COMMANDS.iter().for_each(|command| describe(command, reply));
        return Ok(());
    }
    match args.at(1).to_ascii_lowercase().as_slice() {
        b"count" => reply.length(COMMANDS.len()),
        b"list" => reply.bulks(COMMANDS.iter().map(|command| command.name)),
        b"info" if args.len() == 2 => {
            reply.array(COMMANDS.len());
            COMMANDS.iter().for_each(|command| describe(command, reply));
        }
        b"info" => {
            reply.array(args.len() - 2);
            args.from(2).for_each(|name| match table::find(name) {
                Some(command) => describe(command, reply),
                None => reply.null_array(),
            });
        }
        // There is no documentation here; clients accept an empty answer.
        b"docs" => reply.map(0),
        b"getkeys" if args.len() < 4 => return Err(Error::arity("command|getkeys")),
        b"getkeys" => reply.bulks(keys(args)?.iter()),
        _ => {
            let name = String::from_utf8_lossy(args.at(1));
            return Err(Error::text(format!("ERR unknown subcommand '{name}'. Try COMMAND HELP.")));
        }
    }
    Ok(())
}
