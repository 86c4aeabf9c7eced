//! The smallest program: one line of output as early as a `std` program can print it.
//!
//! On request it shows its input, which tests of boot parameters, console and exit codes need:
//! `hello --args a b`, `hello --env`, `hello --cat`, `hello --ticks 5`, `hello --exit 3`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    println!("Hello from a Rust std program.");
    match run(std::env::args().skip(1)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(mut args: impl Iterator<Item = String>) -> Result<ExitCode, String> {
    let mut code = ExitCode::SUCCESS;
    while let Some(arg) = args.next() {
        let mut number = || -> Result<u32, String> {
            let value = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
            value.parse().map_err(|_| format!("{arg}: `{value}` is not a number"))
        };
        match arg.as_str() {
            "--args" => args.by_ref().enumerate().for_each(|(i, a)| println!("arg {i}: {a}")),
            "--env" => std::env::vars().for_each(|(key, value)| println!("env {key}={value}")),
            "--cat" => cat().map_err(|e| format!("--cat: {e}"))?,
            "--ticks" => ticks(number()?),
            "--exit" => {
                let n = number()?;
                code = ExitCode::from(
                    u8::try_from(n).map_err(|_| format!("--exit: {n} is more than 255"))?,
                );
            }
            _ => {
                return Err(format!(
                    "unknown option `{arg}`; there are --args … --env --cat --ticks N --exit N"
                ));
            }
        }
    }
    Ok(code)
}

/// Copies standard input to standard output, line by line, until it ends.
fn cat() -> io::Result<()> {
    let mut out = io::stdout();
    for line in io::stdin().lines() {
        writeln!(out, "{}", line?)?;
    }
    Ok(())
}

/// Prints a line per second.
fn ticks(count: u32) {
    for n in 1..=count {
        std::thread::sleep(Duration::from_secs(1));
        println!("tick {n}");
    }
}
