//! The connection between two members. Each direction is a queue that keeps its order until it
//! breaks; what is in it may arrive long after its sender has closed it, or died.

use std::collections::VecDeque;

use migrate::replication::wire::Message;

/// One direction.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pipe {
    queue: VecDeque<Message>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum State {
    #[default]
    Open,
    /// Nothing is added any more. The reader finds the end after what is still in it.
    Broken,
    /// The reader has closed it, or has found its end.
    Shut,
}

/// What a reader finds.
pub enum Read {
    Message(Message),
    End,
}

impl Pipe {
    /// The sender does not learn whether it will arrive.
    pub fn push(&mut self, message: Message) {
        if self.state == State::Open {
            self.queue.push_back(message);
        }
    }

    /// Whether the reader has something to find.
    pub fn readable(&self) -> bool {
        !self.queue.is_empty() || self.state == State::Broken
    }

    pub fn read(&mut self) -> Option<Read> {
        if let Some(message) = self.queue.pop_front() {
            return Some(Read::Message(message));
        }
        (std::mem::replace(&mut self.state, State::Shut) == State::Broken).then_some(Read::End)
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn open(&self) -> bool {
        self.state == State::Open
    }

    /// It breaks, and only the first `keep` messages arrive.
    pub fn cut(&mut self, keep: usize) {
        if self.state != State::Shut {
            self.queue.truncate(keep);
            self.state = State::Broken;
        }
    }

    /// The reader closes it.
    pub fn shut(&mut self) {
        self.queue.clear();
        self.state = State::Shut;
    }
}
