//! Runs through what Rust's standard library promises, and reports by name what fails.
//!
//! It is an ordinary program: on an ordinary system it must pass, and elsewhere it must say the same. What cannot be the same by
//! nature is skipped by name, with the reason. Exit code 0: nothing failed; 1: something did; 2: wrong usage.

mod check;
mod checks;
mod die;
mod runner;

use check::Check;
use runner::{Format, Options};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str =
    "usage: std-check [--list] [--only NAME]… [--skip NAME]… [--json] [--inline] [--limit SECONDS]
       std-check --die WAY | --die exit N | --die return N | --die list
NAME is a check or an area, such as `fs` or `fs.seek`.";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("std-check: {error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options =
        Options { format: Format::Lines, inline: false, limit: Duration::from_secs(60) };
    let (mut only, mut without, mut list) = (Vec::new(), Vec::new(), false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("list") => list = true,
            Long("only") => only.push(parser.value()?.string()?),
            Long("skip") => without.push(parser.value()?.string()?),
            Long("json") => options.format = Format::Json,
            Long("inline") => options.inline = true,
            Long("limit") => options.limit = Duration::from_secs(parser.value()?.parse()?),
            Long("die") => {
                let way = parser.value()?.string()?;
                return end(&way, &mut parser);
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
    match runner::run(&chosen, &options) {
        Ok(summary) => {
            Ok(if summary.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(error) => {
            eprintln!("std-check: results could not be written: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn matches(check: &Check, name: &str) -> bool {
    check.name == name || check.name.split_once('.').is_some_and(|(area, _)| area == name)
}

fn end(way: &str, parser: &mut lexopt::Parser) -> Result<ExitCode, lexopt::Error> {
    use lexopt::ValueExt;
    match way {
        "list" => die::WAYS.iter().for_each(|(name, what, _)| println!("{name}: {what}")),
        "exit" => std::process::exit(parser.value()?.parse()?),
        "return" => return Ok(ExitCode::from(parser.value()?.parse::<u8>()?)),
        way => die::die(way)?,
    }
    Ok(ExitCode::SUCCESS)
}
