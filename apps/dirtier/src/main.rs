//! Rewrites N pages as fast as it can, and checks each before it does: the hardest load for a live
//! migration, and a check that it lost nothing.
//!
//! Each page contains its sequence number and a checksum; a page that is older, newer, torn or
//! swapped is an error. The loop reads the clock at every page: that shows the guest its own
//! blackouts, and is where a unikernel checks whether it is asked to quiesce. Every few
//! milliseconds it yields, so that the status port's threads run where threads are scheduled
//! cooperatively.

mod gaps;
mod page;
mod status;

use gaps::Gaps;
use page::Page;
use status::{Board, Counters};
use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the loop runs before it yields. It publishes counters right before.
const YIELD_EVERY: Duration = Duration::from_millis(2);
/// How often it prints a line.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// How many broken pages it names individually.
const NAMED: u64 = 10;
const HELP: &str = "\
Rewrites pages of memory as fast as it can, and checks each before it does.

Usage: dirtier [--pages N] [--port PORT] [--seconds S] [--passes N] [--quiet] [--spoil PAGE]

  --pages N       how many pages of 4 KiB [default: 1024]
  --port PORT     answer questions on this TCP port; 0 takes a free one and prints it
  --seconds S     end after so many seconds [default: never]
  --passes N      end after so many times through all pages [default: never]
  --quiet         print no line each second
  --spoil PAGE    flip a bit of this page after the first pass, to see that it is noticed
  --help          print this

A page that is not as it was written is named, and ends the program with exit code 1.
The port takes lines: `status` answers a line of JSON, `reset` as well and forgets the gaps. Try:
  echo status | nc -q1 localhost PORT";

struct Options {
    pages: usize,
    port: Option<u16>,
    seconds: Option<u64>,
    passes: u64,
    quiet: bool,
    spoil: Option<usize>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("dirtier: {error}; --help shows the options");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("dirtier: {errors} pages were not as they had been written");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("dirtier: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The options, or `None` if help is requested.
fn options() -> Result<Option<Options>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        pages: 1024,
        port: None,
        seconds: None,
        passes: u64::MAX,
        quiet: false,
        spoil: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("pages") => options.pages = parser.value()?.parse()?,
            Long("port") => options.port = Some(parser.value()?.parse()?),
            Long("seconds") => options.seconds = Some(parser.value()?.parse()?),
            Long("passes") => options.passes = parser.value()?.parse()?,
            Long("quiet") => options.quiet = true,
            Long("spoil") => options.spoil = Some(parser.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    if options.pages == 0 {
        return Err("--pages must be at least 1".into());
    }
    if options.spoil.is_some_and(|page| page >= options.pages) {
        return Err("--spoil must name one of the pages, which count from 0".into());
    }
    Ok(Some(options))
}

/// Runs until the requested time or number of passes is over, or to the end of a pass with errors.
/// Returns the number of errors.
fn run(options: &Options) -> Result<u64, String> {
    let mut pages = allocate(options.pages)?;
    let board = Arc::new(Board::default());
    let nonce = RandomState::new().hash_one(());
    let mut counters = Counters { nonce, pages: options.pages, ..Counters::default() };
    let mut forget_gaps = board.publish(&counters);
    if let Some(port) = options.port {
        let port = status::serve(port, Arc::clone(&board))
            .map_err(|e| format!("status port {port}: {e}"))?;
        println!("dirtier: status on port {port}");
    }
    println!("dirtier: nonce {nonce:016x}, {} pages", options.pages);

    let start = Instant::now();
    let since_start = |t: Instant| t.duration_since(start).as_nanos() as u64;
    let end_ns = options.seconds.map_or(u64::MAX, |s| s.saturating_mul(1_000_000_000));
    let (mut last, mut yielded, mut reported) = (start, start, start);
    let mut done_at_report = 0u64;
    while counters.passes < options.passes && counters.errors == 0 && since_start(last) < end_ns {
        let pass = counters.passes;
        for (index, page) in (0u64..).zip(&mut pages) {
            if let Err(mismatch) = page.check(index, pass) {
                counters.errors += 1;
                if counters.errors <= NAMED {
                    eprintln!("dirtier: page {index} {mismatch}");
                }
            }
            page.rewrite(index, pass + 1);
            counters.pages_written += 1;

            let now = Instant::now();
            counters.gaps.record(since_start(now), now.duration_since(last).as_nanos() as u64);
            last = now;
            if std::mem::take(&mut forget_gaps) {
                counters.gaps = Gaps::default();
            }
            if now.duration_since(yielded) >= YIELD_EVERY {
                if now.duration_since(reported) >= REPORT_EVERY {
                    let done = counters.pages_written - done_at_report;
                    counters.pages_per_second = rate(done, now.duration_since(reported));
                    (reported, done_at_report) = (now, counters.pages_written);
                    if !options.quiet {
                        report(&counters);
                    }
                }
                counters.uptime_ns = since_start(now);
                forget_gaps = board.publish(&counters);
                yielded = now;
                std::thread::yield_now();
            }
        }
        counters.passes += 1;
        if let (0, Some(page)) = (pass, options.spoil) {
            pages[page].spoil();
        }
    }
    report(&counters);
    Ok(counters.errors)
}

fn rate(done: u64, time: Duration) -> u64 {
    (u128::from(done) * 1_000_000_000 / time.as_nanos().max(1)) as u64
}

fn allocate(count: usize) -> Result<Vec<Page>, String> {
    let mut pages = Vec::new();
    pages.try_reserve_exact(count).map_err(|_| {
        format!("{count} pages ({} KiB) do not fit into memory", count * page::PAGE_SIZE / 1024)
    })?;
    pages.extend((0..count as u64).map(|index| Page::new(index, 0)));
    Ok(pages)
}

fn report(counters: &Counters) {
    println!(
        "dirtier: passes={} errors={} pages/s={} max_gap_us={}",
        counters.passes,
        counters.errors,
        counters.pages_per_second,
        counters.gaps.max_ns() / 1000
    );
}
