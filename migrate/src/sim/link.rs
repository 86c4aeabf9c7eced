//! The link between the hosts, which can break after any message.

use std::collections::VecDeque;

use super::guest::PAGES;
use crate::wire::{self, HEADER_SIZE, Header, Message};

/// Where the link breaks.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// After this many messages in both directions together.
    pub after: usize,
    /// Whether that message is lost too.
    pub lost: bool,
}

/// The direction of a message.
#[derive(Clone, Copy, Debug)]
pub enum To {
    Destination,
    Source,
}

/// See the module. When the link breaks, messages in transit are lost, and so are those sent until
/// it is up again.
#[derive(Debug)]
pub struct Link {
    to_destination: VecDeque<Vec<u8>>,
    to_source: VecDeque<Vec<u8>>,
    up: bool,
    /// Cuts, one after the other; each counts from the one before.
    cuts: VecDeque<Cut>,
    since_cut: usize,
    messages: usize,
}

impl Link {
    pub fn new(cuts: &[Cut]) -> Self {
        Self {
            to_destination: VecDeque::new(),
            to_source: VecDeque::new(),
            up: true,
            cuts: cuts.iter().copied().collect(),
            since_cut: 0,
            messages: 0,
        }
    }

    /// Messages that were sent, in both directions together.
    pub fn messages(&self) -> usize {
        self.messages
    }

    pub fn send(&mut self, to: To, message: &Message) {
        let queue = match to {
            To::Destination => &mut self.to_destination,
            To::Source => &mut self.to_source,
        };
        if self.up {
            queue.push_back(message.encode());
        }
    }

    /// The next message in transit: its direction, and what arrives of it.
    pub fn next(&mut self) -> Option<(To, Option<Message>)> {
        let there = self.to_destination.pop_front().map(|bytes| (To::Destination, bytes));
        let back = || self.to_source.pop_front().map(|bytes| (To::Source, bytes));
        let (to, bytes) = there.or_else(back)?;
        let lost = self.cuts.front().is_some_and(|c| c.lost && c.after == self.since_cut);
        self.messages += 1;
        self.since_cut += 1;
        Some((to, (!lost).then(|| decode(&bytes))))
    }

    /// Whether the link breaks after that message.
    pub fn breaks(&mut self) -> bool {
        let now = self.up && self.cuts.front().is_some_and(|c| self.since_cut > c.after);
        if now {
            self.up = false;
            self.since_cut = 0;
            self.cuts.pop_front();
            self.to_destination.clear();
            self.to_source.clear();
        }
        now
    }

    /// The source has connected again.
    pub fn reconnect(&mut self) {
        self.up = true;
    }

    /// Begins another try, and counts its messages from zero.
    pub fn again(&mut self) {
        self.up = true;
        self.since_cut = 0;
    }
}

fn decode(bytes: &[u8]) -> Message {
    let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().expect("a whole message");
    let header = Header::decode(header).expect("a valid header");
    wire::decode(&header, body, PAGES).expect("a valid body")
}
