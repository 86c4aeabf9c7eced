//! Post-copy pages: which are left, in which order they are sent, and how many may be in transit.

use crate::{page_set::PageSet, wire::Run};

/// Pages that may be in transit without having been put in place: a page that the guest waits for
/// queues behind them.
const WINDOW: u64 = 64;
/// Pages sent at once.
const AT_ONCE: usize = 16;

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Following {
    /// Not sent yet.
    left: PageSet,
    /// Where the next pages are taken from: behind the pages that the guest requested last.
    cursor: usize,
    /// Sent and put in place, on this connection.
    sent: u64,
    filled: u64,
}

impl Following {
    pub fn new(left: PageSet) -> Self {
        Self { left, cursor: 0, sent: 0, filled: 0 }
    }

    /// The destination reports, on a new connection, that it lacks these pages.
    pub fn begin_again(&mut self, lacks: PageSet) {
        *self = Self { cursor: self.cursor, ..Self::new(lacks) };
    }

    /// The requested pages that have not been sent.
    pub fn wanted(&mut self, runs: &[Run]) -> PageSet {
        let mut now = PageSet::none(self.left.limit());
        now.insert_runs(runs);
        now.keep(&self.left);
        self.left.take_out(&now);
        if let Some(&(first, count)) = runs.last() {
            self.cursor = (first + count) as usize;
        }
        now
    }

    /// The pages to send next, if any may be sent.
    pub fn next(&mut self) -> Option<PageSet> {
        if self.sent.saturating_sub(self.filled) >= WINDOW {
            return None;
        }
        let mut now = PageSet::none(self.left.limit());
        for _ in 0..AT_ONCE {
            let Some(page) = self.left.next_from(self.cursor).or_else(|| self.left.next_from(0))
            else {
                break;
            };
            self.left.remove(page);
            now.insert(page);
            self.cursor = page + 1;
        }
        (!now.is_empty()).then_some(now)
    }

    /// Records that `pages` pages were sent.
    pub fn sent(&mut self, pages: u64) {
        self.sent += pages;
    }

    /// Records that the destination has put `pages` pages in place, in total.
    pub fn filled(&mut self, pages: u64) {
        self.filled = self.filled.max(pages).min(self.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(range: std::ops::Range<usize>) -> PageSet {
        let mut pages = PageSet::none(1000);
        range.for_each(|n| pages.insert(n));
        pages
    }

    #[test]
    fn each_page_is_sent_once_and_requested_pages_first() {
        let mut following = Following::new(set(10..200));
        assert_eq!(following.next(), Some(set(10..26)));
        following.sent(16);
        assert_eq!(
            following.wanted(&[(20, 2), (100, 1)]),
            set(100..101),
            "20 and 21 are on their way"
        );
        assert_eq!(following.next(), Some(set(101..117)), "and its neighbors after it");
        let mut seen = 16 + 1 + 16;
        following.sent(17);
        loop {
            following.filled(seen);
            let Some(pages) = following.next() else { break };
            following.sent(pages.len() as u64);
            seen += pages.len() as u64;
        }
        assert_eq!(seen, 190);
    }

    #[test]
    fn the_pages_in_transit_are_bounded() {
        let mut following = Following::new(set(0..1000));
        let mut sent = 0;
        while let Some(pages) = following.next() {
            sent += pages.len() as u64;
            following.sent(pages.len() as u64);
        }
        assert_eq!(sent, WINDOW);
        following.filled(u64::MAX);
        assert!(
            following.next().is_some(),
            "a lie about what arrived gains nothing more than the window"
        );
    }

    #[test]
    fn a_new_connection_starts_from_what_the_destination_lacks() {
        let mut following = Following::new(set(0..20));
        let _ = following.next();
        following.sent(16);
        following.begin_again(set(4..20));
        assert_eq!(following.next(), Some(set(4..20)));
    }
}
