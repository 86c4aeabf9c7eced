//! Messages about a VM with missing memory: how long post-copy took, and how the VM waits for a
//! source that is unreachable.

use migrate::{page_set::PageSet, wire::Arrival};
use std::time::{Duration, Instant};

/// When the wait is first reported; from then on whenever it has doubled.
const FIRST: Duration = Duration::from_secs(10);
/// The longest interval between reports.
const SELDOM: Duration = Duration::from_secs(3600);
/// Page ranges on a line: loggers may cut long lines.
const ROWS: usize = 64;

/// A wait for the source.
#[derive(Debug)]
pub(super) struct Waiting {
    since: Instant,
    /// When the wait is reported next.
    next: Duration,
    lacks: usize,
}

impl Waiting {
    /// The wait begins: prints that, and all pages that the VM lacks.
    pub fn begin(why: &str, lacking: &PageSet, limit: Option<Duration>) -> Self {
        let lacks = lacking.len();
        let end = match limit {
            Some(limit) => format!("for {limit:?} (--lost-after), and is lost after that"),
            None => "until it is back (`vmm-lite stop` ends it)".into(),
        };
        eprintln!(
            "vmm-lite: the connection to the source broke ({why}); the VM lacks {lacks} pages, \
             stops where it needs one, and waits for the source {end}"
        );
        say_which(lacking);
        Self { since: Instant::now(), next: FIRST, lacks }
    }

    /// The wait continues: prints its duration from time to time.
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

/// Prints the missing pages.
pub(super) fn say_which(lacking: &PageSet) {
    for line in lines(lacking) {
        eprintln!("vmm-lite: missing (guest-physical page numbers): {line}");
    }
}

/// Prints how long the VM depended on both hosts, and what that cost it.
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

/// The pages as text: every one of them, in lines of ranges.
fn lines(pages: &PageSet) -> Vec<String> {
    let rows: Vec<String> = pages
        .runs()
        .map(|(first, count)| match count {
            1 => format!("{first:#x}"),
            _ => format!("{first:#x}-{:#x}", first + count - 1),
        })
        .collect();
    rows.chunks(ROWS).map(|rows| rows.join(" ")).collect()
}

/// The source is unreachable with memory that the guest needs.
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
        let mut pages = PageSet::none(1 << 20);
        pages.insert_runs(&[(0x10, 1), (0x20, 3)]);
        assert_eq!(lines(&pages), ["0x10 0x20-0x22"]);
        pages.insert_runs(&(0..1000).map(|n| (0x1000 + 2 * n, 1)).collect::<Vec<_>>());
        let lines = lines(&pages);
        assert!(lines.iter().all(|line| line.len() < 2000));
        let named: Vec<&str> = lines.iter().flat_map(|line| line.split(' ')).collect();
        assert_eq!((named.len(), named[1001]), (1002, "0x17ce"));
    }
}
