//! Rewrites N pages as fast as it can, and checks each before it does: what a live migration finds hardest, and the proof
//! that it lost nothing.
//!
//! Each page carries its sequence number and a checksum; a page that came back older, newer, torn or swapped is an error.
//! The loop reads the clock at every page: that is how a guest sees its own blackouts, and where a unikernel looks
//! whether it is asked to quiesce. Every few milliseconds it yields, so that the status port's threads have their turn where threads
//! are scheduled cooperatively.
//!
//! `dirtier [--pages N] [--port P] [--passes N] [--quiet]`

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

/// How long the loop runs before it lets others run. Counters are published just before.
const YIELD_EVERY: Duration = Duration::from_millis(2);
/// How often a line is printed.
const REPORT_EVERY: Duration = Duration::from_secs(1);
const USAGE: &str = "usage: dirtier [--pages N] [--port P] [--passes N] [--quiet]";

struct Options {
    pages: usize,
    port: Option<u16>,
    passes: u64,
    quiet: bool,
}

fn main() -> ExitCode {
    let result = options()
        .map_err(|e| (2, format!("{e}\n{USAGE}")))
        .and_then(|o| run(&o).map_err(|e| (1, e)));
    match result {
        Ok(0) => ExitCode::SUCCESS,
        Ok(errors) => {
            eprintln!("dirtier: {errors} pages were not as they had been written");
            ExitCode::FAILURE
        }
        Err((code, text)) => {
            eprintln!("dirtier: {text}");
            ExitCode::from(code)
        }
    }
}

fn options() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options { pages: 1024, port: None, passes: u64::MAX, quiet: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("pages") => options.pages = parser.value()?.parse()?,
            Long("port") => options.port = Some(parser.value()?.parse()?),
            Long("passes") => options.passes = parser.value()?.parse()?,
            Long("quiet") => options.quiet = true,
            _ => return Err(arg.unexpected()),
        }
    }
    if options.pages == 0 {
        return Err("--pages must be at least 1".into());
    }
    Ok(options)
}

/// Runs until the passes asked for are done; says how many errors there were.
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
    let (mut last, mut yielded, mut reported) = (start, start, start);
    let (mut done, mut done_at_report) = (0u64, 0u64);
    while counters.passes < options.passes {
        let pass = counters.passes;
        for (index, page) in (0u64..).zip(&mut pages) {
            if !page.check(index, pass) {
                counters.errors += 1;
                eprintln!("dirtier: page {index} is not as it was written in pass {pass}");
            }
            page.rewrite(index, pass + 1);
            done += 1;

            let now = Instant::now();
            counters.gaps.record(since_start(now), now.duration_since(last).as_nanos() as u64);
            last = now;
            if std::mem::take(&mut forget_gaps) {
                counters.gaps = Gaps::default();
            }
            if now.duration_since(yielded) >= YIELD_EVERY {
                if now.duration_since(reported) >= REPORT_EVERY {
                    let nanos = now.duration_since(reported).as_nanos() as u64;
                    counters.pages_per_second = (u128::from(done - done_at_report) * 1_000_000_000
                        / u128::from(nanos)) as u64;
                    (reported, done_at_report) = (now, done);
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
    }
    report(&counters);
    Ok(counters.errors)
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
