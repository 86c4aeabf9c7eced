//! Runs checks one after another and reports each as it ends.
//!
//! A check runs on a thread of its own, so that a hanging check is reported and the rest still run;
//! its thread is then abandoned. `inline` runs checks on the main thread instead, for a system
//! whose threads do not work yet.

use crate::check::{Check, Failure, Outcome};
use std::io::{self, Write};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How results are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `ok name`, `skip name: why`, `FAIL name: why`, and a summary.
    Lines,
    /// The same as one JSON object per line.
    Json,
}

/// Options of a run.
pub struct Options {
    pub format: Format,
    pub verbose: bool,
    pub inline: bool,
    pub limit: Duration,
}

/// Number of checks by result.
#[derive(Default)]
pub struct Summary {
    pub passed: usize,
    pub skipped: usize,
    pub failed: Vec<&'static str>,
}

/// Runs all of `checks`.
pub fn run(checks: &[Check], options: &Options) -> io::Result<Summary> {
    let mut summary = Summary::default();
    for check in checks {
        let start = Instant::now();
        let outcome = outcome(check, options)?;
        let took = start.elapsed();
        match &outcome {
            Ok(()) => summary.passed += 1,
            Err(Failure::Skipped(_)) => summary.skipped += 1,
            Err(Failure::Failed(_)) => summary.failed.push(check.name),
        }
        tell(check.name, &outcome, took, options.format)?;
    }
    conclude(&summary, options.format)?;
    Ok(summary)
}

/// Runs one check, and first reports its start if `options` ask for that.
pub fn outcome(check: &Check, options: &Options) -> io::Result<Outcome> {
    if options.verbose {
        announce(check.name, options.format)?;
    }
    Ok(if options.inline { (check.run)() } else { on_a_thread(check, options.limit) })
}

fn on_a_thread(check: &Check, limit: Duration) -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let run = check.run;
    let thread = thread::Builder::new().name(check.name.to_owned()).spawn(move || {
        // The receiver is gone only if this check has timed out.
        let _ = sender.send(run());
    })?;
    match receiver.recv_timeout(limit) {
        Ok(outcome) => {
            thread.join().map_err(|_| Failure::Failed("its thread panicked at its end".into()))?;
            outcome
        }
        Err(RecvTimeoutError::Disconnected) => Err(Failure::Failed("panicked".into())),
        Err(RecvTimeoutError::Timeout) => {
            Err(Failure::Failed(format!("not done after {} s; left behind", limit.as_secs())))
        }
    }
}

fn announce(name: &str, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Lines => writeln!(out, "... {name}")?,
        Format::Json => writeln!(out, "{{\"begin\":\"{name}\"}}")?,
    }
    out.flush()
}

/// Writes the result of a check.
pub fn tell(name: &str, outcome: &Outcome, took: Duration, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (word, why) = match outcome {
        Ok(()) => ("ok", ""),
        Err(Failure::Skipped(why)) => ("skip", why.as_str()),
        Err(Failure::Failed(why)) => ("FAIL", why.as_str()),
    };
    match format {
        Format::Lines if why.is_empty() => writeln!(out, "{word} {name}"),
        Format::Lines => writeln!(out, "{word} {name}: {why}"),
        Format::Json => writeln!(
            out,
            "{{\"check\":\"{name}\",\"outcome\":\"{}\",\"why\":{},\"ns\":{}}}",
            word.to_ascii_lowercase(),
            json_string(why),
            took.as_nanos()
        ),
    }
}

fn conclude(summary: &Summary, format: Format) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let Summary { passed, skipped, failed } = summary;
    match format {
        Format::Lines => {
            writeln!(
                out,
                "std-check: {passed} passed, {skipped} skipped, {} failed",
                failed.len()
            )?;
            if !failed.is_empty() {
                writeln!(out, "std-check: failed: {}", failed.join(" "))?;
            }
        }
        Format::Json => {
            writeln!(
                out,
                "{{\"passed\":{passed},\"skipped\":{skipped},\"failed\":{}}}",
                failed.len()
            )?;
        }
    }
    out.flush()
}

fn json_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_and_a_hang_or_panic_is_a_failure() {
        let checks = [
            Check { name: "t.ok", run: || Ok(()) },
            Check { name: "t.skip", run: || Err(Failure::Skipped("why".into())) },
            Check { name: "t.fail", run: || Err(crate::check::failed("no")) },
            Check {
                name: "t.hang",
                run: || loop {
                    thread::park()
                },
            },
            Check { name: "t.panic", run: || panic!("on purpose") },
        ];
        let options = Options {
            format: Format::Lines,
            verbose: true,
            inline: false,
            limit: Duration::from_millis(100),
        };
        let summary = run(&checks, &options).unwrap();
        assert_eq!((summary.passed, summary.skipped), (1, 1));
        assert_eq!(summary.failed, ["t.fail", "t.hang", "t.panic"]);
    }

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(json_string("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000ad\"");
    }
}
