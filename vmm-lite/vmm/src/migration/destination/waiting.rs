//! What is said of a VM whose memory follows: how long that took, and how it waits for a source
//! that went away.

use migrate::{pages::Pages, wire::Arrival};
use std::time::{Duration, Instant};

/// When it is said first how long it waits already; from then on whenever that has doubled.
const FIRST: Duration = Duration::from_secs(10);
/// At least so often it is said.
const SELDOM: Duration = Duration::from_secs(3600);
/// Rows of pages on a line: what keeps logs may cut long ones.
const ROWS: usize = 64;

/// A wait for the source.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    /// Past that it is said how long it takes.
    next: Duration,
    lacks: usize,
}

impl Waiting {
    /// It begins: says so, and which pages the VM lacks, all of them.
    pub fn begin(why: &str, lacking: &Pages, limit: Option<Duration>) -> Self {
        let lacks = lacking.len();
        let end = match limit {
            Some(limit) => format!("for {limit:?} (--lost-after), and is lost after that"),
            None => "until it is back (`vmm-lite stop` ends it)".into(),
        };
        eprintln!(
            "vmm-lite: the connection to the source broke ({why}); the VM lacks {lacks} pages, \
             stands where it needs one, and waits for the source {end}"
        );
        say_which(lacking);
        Self { since: Instant::now(), next: FIRST, lacks }
    }

    /// It goes on: says now and then for how long it has.
    pub fn go_on(&mut self) {
        let waited = self.since.elapsed();
        if waited >= self.next {
            self.next = waited + waited.min(SELDOM);
            eprintln!(
                "vmm-lite: the VM has waited for its source for {} s; it lacks {} pages",
                waited.as_secs(),
                self.lacks
            );
        }
    }
}

/// Says which pages are missing.
pub(super) fn say_which(lacking: &Pages) {
    for line in lines(lacking) {
        eprintln!("vmm-lite: missing (guest-physical page numbers): {line}");
    }
}

/// Says for how long the VM depended on both hosts, and what that cost it.
pub(super) fn say_whole(took: Duration, arrival: &Arrival) {
    let ms = |ns: u64| ns as f64 / 1e6;
    eprintln!(
        "vmm-lite: all memory is here, {:.1} ms after the VM began to run; it waited for {} pages, \
         {:.1} ms at most and {:.1} ms in all",
        ms(took.as_nanos() as u64),
        arrival.waited,
        ms(arrival.worst_ns),
        ms(arrival.waited_ns)
    );
}

/// Pages, for people: every one of them, in rows.
fn lines(pages: &Pages) -> Vec<String> {
    let rows: Vec<String> = pages
        .runs()
        .map(|(first, count)| match count {
            1 => format!("{first:#x}"),
            _ => format!("{first:#x}-{:#x}", first + count - 1),
        })
        .collect();
    rows.chunks(ROWS).map(|rows| rows.join(" ")).collect()
}

/// The source went away with memory that the guest cannot do without.
#[derive(thiserror::Error, Debug)]
#[error(
    "the source did not come back in time with {pages} pages of memory that were to follow: the VM \
     is lost. Which pages is said above"
)]
pub(super) struct Lost {
    /// How many.
    pub pages: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_named_on_lines_that_are_not_too_long() {
        let mut pages = Pages::none(1 << 20);
        pages.insert_runs(&[(0x10, 1), (0x20, 3)]);
        assert_eq!(lines(&pages), ["0x10 0x20-0x22"]);
        pages.insert_runs(&(0..1000).map(|n| (0x1000 + 2 * n, 1)).collect::<Vec<_>>());
        let lines = lines(&pages);
        assert!(lines.iter().all(|line| line.len() < 2000));
        let named: Vec<&str> = lines.iter().flat_map(|line| line.split(' ')).collect();
        assert_eq!((named.len(), named[1001]), (1002, "0x17ce"));
    }
}
