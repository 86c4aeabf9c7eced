//! Pages that the guest runs without: which are missing, which it waits for, which were requested.

use std::time::Duration;

use crate::{
    page_set::PageSet,
    wire::{Arrival, Message, RUNS_PER_MESSAGE, Run},
};

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Lacking {
    pages: PageSet,
    count: usize,
    /// Pages that the guest waits for, each with the time at which the wait began.
    waiting: Vec<(usize, Duration)>,
    /// Pages that have arrived on this connection since the commit.
    filled: u64,
    arrival: Arrival,
}

impl Lacking {
    /// Nothing is missing, of the VM's `limit` pages.
    pub fn none(limit: usize) -> Self {
        Self {
            pages: PageSet::none(limit),
            count: 0,
            waiting: Vec::new(),
            filled: 0,
            arrival: Arrival::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn pages(&self) -> &PageSet {
        &self.pages
    }

    pub fn arrival(&self) -> Arrival {
        self.arrival
    }

    /// How long the guest has waited for pages, including the waits under way.
    pub fn waited(&self, now: Duration) -> Duration {
        let under_way = self.waiting.iter().map(|(_, since)| now.saturating_sub(*since));
        Duration::from_nanos(self.arrival.waited_ns) + under_way.sum::<Duration>()
    }

    /// These pages will be sent after the commit.
    pub fn add(&mut self, runs: &[Run]) {
        self.pages.insert_runs(runs);
        self.count = self.pages.len();
    }

    /// These pages have arrived before the commit.
    pub fn came(&mut self, runs: &[Run]) {
        for page in numbers(runs) {
            self.count -= usize::from(self.pages.remove(page));
        }
    }

    /// These pages have arrived after the commit. Returns the message that reports it.
    pub fn filled(&mut self, runs: &[Run], now: Duration) -> Message {
        self.came(runs);
        self.filled += runs.iter().map(|(_, count)| count).sum::<u64>();
        let pages = &self.pages;
        let arrival = &mut self.arrival;
        self.waiting.retain(|&(page, since)| {
            let waits = pages.contains(page);
            if !waits {
                let took = now.saturating_sub(since).as_nanos() as u64;
                arrival.waited += 1;
                arrival.waited_ns += took;
                arrival.worst_ns = arrival.worst_ns.max(took);
            }
            waits
        });
        Message::Filled(self.filled)
    }

    /// The guest waits for a page that is missing. Returns whether that is new.
    pub fn wait_for(&mut self, page: usize, now: Duration) -> bool {
        let news = self.waiting.iter().all(|(waited_for, _)| *waited_for != page);
        if news {
            self.waiting.push((page, now));
        }
        news
    }

    /// The messages for a new connection: all that is missing, and what the guest waits for.
    pub fn say_all(&mut self) -> Vec<Message> {
        self.filled = 0;
        let runs: Vec<Run> = self.pages.runs().collect();
        let mut words: Vec<_> =
            runs.chunks(RUNS_PER_MESSAGE).map(|runs| Message::Lacks(runs.to_vec())).collect();
        words.push(Message::Lacks(Vec::new()));
        if !self.waiting.is_empty() {
            let wanted = self.waiting.iter().map(|(page, _)| (*page as u64, 1));
            words.push(Message::Want(wanted.take(RUNS_PER_MESSAGE).collect()));
        }
        words
    }
}

fn numbers(runs: &[Run]) -> impl Iterator<Item = usize> {
    runs.iter().flat_map(|&(first, count)| first as usize..(first + count) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn pages_that_arrive_are_not_missing_and_waits_are_timed() {
        let mut lacking = Lacking::none(100);
        lacking.add(&[(10, 5), (50, 1)]);
        assert!(lacking.wait_for(12, MS) && !lacking.wait_for(12, 2 * MS));
        assert_eq!(lacking.filled(&[(10, 2), (90, 1)], 3 * MS), Message::Filled(3));
        assert_eq!(lacking.arrival().waited, 0);
        assert_eq!(lacking.waited(4 * MS), 3 * MS, "it still waits");
        assert_eq!(
            lacking.say_all(),
            [
                Message::Lacks(vec![(12, 3), (50, 1)]),
                Message::Lacks(Vec::new()),
                Message::Want(vec![(12, 1)])
            ]
        );
        assert_eq!(
            lacking.filled(&[(12, 3)], 5 * MS),
            Message::Filled(3),
            "it is a new connection"
        );
        lacking.came(&[(50, 1)]);
        assert!(lacking.is_empty());
        let waited_ns = 4_000_000;
        assert_eq!(lacking.waited(9 * MS), 4 * MS);
        assert_eq!(lacking.arrival(), Arrival { waited: 1, waited_ns, worst_ns: waited_ns });
    }

    #[test]
    fn a_long_list_is_sent_in_pieces() {
        let mut lacking = Lacking::none(10_000);
        lacking.add(&(0..5000).map(|n| (2 * n, 1)).collect::<Vec<_>>());
        let words = lacking.say_all();
        assert_eq!(words.len(), 6);
        assert!(words.iter().all(|word| word.encode().len() < 64 << 10));
    }
}
