//! Checks what Rust's standard library specifies, and reports each failure by name; and checks the
//! mio and polling crates on the same system, since most servers are built on one of them.
//!
//! It is an ordinary program: on an ordinary system it must pass, and elsewhere it must report the
//! same. What cannot be the same by nature is skipped by name, with the reason. Exit code 0:
//! nothing failed; 1: something did; 2: wrong usage.

mod check;
mod checks;
mod die;
mod last_words;
mod repeat;
mod runner;

use check::Check;
use runner::{Format, Options};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
Runs through what Rust's standard library promises, and reports by name what fails.

Usage: std-check [--only NAME]... [--skip NAME]... [--json] [--verbose] [--inline] [--limit SECONDS]
                 [--for SECONDS [--seed N]]
       std-check --list
       std-check [--send ADDRESS] --die WAY

NAME is a check, such as `files.seek`, or an area, such as `files`.

  --list            print the names of all checks that would run
  --only NAME       run only this check or area; may be given again
  --skip NAME       leave out this check or area; may be given again
  --json            one JSON object a line: check, outcome, why, ns; then the counts
  --verbose         say which check begins, so that one that stops the machine is known
  --inline          run the checks on the main thread, where threads do not work yet
  --limit SECONDS   give up on a check after this time [default: 60]
  --for SECONDS     run them again and again in an order that changes, and tell after each round
                    what is the largest block that there is memory for
  --seed N          the order that a run with this number had [default: another each time]
  --die WAY         end the program in some way, to see what becomes of it; `--die list` tells how
  --send ADDRESS    before that, send ten datagrams and a stream to this address and port
  --help            print this

A line for each check: `ok NAME`, `skip NAME: why` or `FAIL NAME: why`, then a summary.
Exit code 0: nothing failed; 1: something did; 2: wrong usage.";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("std-check: {error}; --help shows the options");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        format: Format::Lines,
        verbose: false,
        inline: false,
        limit: Duration::from_secs(60),
    };
    let (mut only, mut without, mut list) = (Vec::new(), Vec::new(), false);
    let (mut time, mut seed) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("list") => list = true,
            Long("only") => only.push(parser.value()?.string()?),
            Long("skip") => without.push(parser.value()?.string()?),
            Long("json") => options.format = Format::Json,
            Long("verbose") => options.verbose = true,
            Long("inline") => options.inline = true,
            Long("limit") => options.limit = Duration::from_secs(parser.value()?.parse()?),
            Long("for") => time = Some(Duration::from_secs(parser.value()?.parse()?)),
            Long("seed") => seed = Some(parser.value()?.parse()?),
            Long("send") => {
                let to: SocketAddr = parser.value()?.parse()?;
                if let Err(e) = last_words::send(to) {
                    eprintln!("std-check: cannot send to {to}: {e}");
                    return Ok(ExitCode::FAILURE);
                }
            }
            Long("die") => return end(&parser.value()?.string()?),
            Short('h') | Long("help") => {
                println!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(arg.unexpected()),
        }
    }
    let all: Vec<Check> = checks::ALL.iter().flat_map(|area| area.iter().copied()).collect();
    for name in only.iter().chain(&without) {
        if !all.iter().any(|check| matches(check, name)) {
            return Err(format!("no check or area is called `{name}`; --list shows all").into());
        }
    }
    let chosen: Vec<Check> = all
        .into_iter()
        .filter(|check| only.is_empty() || only.iter().any(|name| matches(check, name)))
        .filter(|check| !without.iter().any(|name| matches(check, name)))
        .collect();
    if list {
        chosen.iter().for_each(|check| println!("{}", check.name));
        return Ok(ExitCode::SUCCESS);
    }
    let passed = match time {
        None => runner::run(&chosen, &options).map(|summary| summary.failed.is_empty()),
        Some(time) => {
            let seed = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
            repeat::run(&chosen, &options, time, seed)
        }
    };
    match passed {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            eprintln!("std-check: results could not be written: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn matches(check: &Check, name: &str) -> bool {
    check.name == name || check.name.split_once('.').is_some_and(|(area, _)| area == name)
}

fn end(way: &str) -> Result<ExitCode, lexopt::Error> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is not an exit code"));
    match way.split_once('=') {
        Some(("exit", code)) => std::process::exit(number(code)?),
        Some(("return", code)) => {
            let code = number(code)?;
            let code =
                u8::try_from(code).map_err(|_| format!("{code} does not fit into a byte"))?;
            Ok(ExitCode::from(code))
        }
        _ if way == "list" => {
            die::WAYS.iter().for_each(|(name, what, _)| println!("{name}: {what}"));
            println!("exit=N: calls std::process::exit\nreturn=N: returns from main");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            die::die(way)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
