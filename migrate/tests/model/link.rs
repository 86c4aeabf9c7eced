//! Connections. Each direction is a queue that keeps its order until it breaks. Its content can
//! still arrive long after its sender has abandoned the connection and opened another.

use std::collections::VecDeque;

use migrate::wire::Message;

/// Pages of the guest.
pub const PAGES: usize = 2;

/// Content of the guest's memory: a version for each page.
pub type Memory = [u8; PAGES];

/// What is sent on a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Packet {
    /// A message that the state machines see.
    Message(Message),
    /// Pages with their content, which the drivers write to memory.
    Pages([Option<u8>; PAGES]),
}

/// One direction of a connection.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pipe {
    queue: VecDeque<Packet>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum State {
    #[default]
    Open,
    /// Nothing is added any more: the sender closed it, or the network lost it. The reader finds
    /// its end after what is still in it.
    Broken,
    /// The reader has closed it.
    Shut,
}

impl Pipe {
    /// The sender hands over a packet; it does not learn whether it will arrive.
    pub fn push(&mut self, packet: Packet) {
        if self.state == State::Open {
            self.queue.push_back(packet);
        }
    }

    /// The reader takes the next packet.
    pub fn pop(&mut self) -> Option<Packet> {
        self.queue.pop_front()
    }

    /// What the reader would take next.
    pub fn peek(&self) -> Option<&Packet> {
        self.queue.front()
    }

    /// Whether the reader can find out that nothing more will arrive.
    pub fn ended(&self) -> bool {
        self.state == State::Broken && self.queue.is_empty()
    }

    /// The numbers of packets that a break may keep: any prefix.
    pub fn prefixes(&self) -> std::ops::Range<usize> {
        match self.state {
            State::Open => 0..self.queue.len() + 1,
            State::Broken => 0..self.queue.len(),
            State::Shut => 0..0,
        }
    }

    /// The queue breaks, and only the first `keep` packets arrive.
    pub fn cut(&mut self, keep: usize) {
        if self.state != State::Shut {
            self.queue.truncate(keep);
            self.state = State::Broken;
        }
    }

    /// The sender closes it.
    pub fn close(&mut self) {
        self.cut(self.queue.len());
    }

    /// The reader closes it.
    pub fn shut(&mut self) {
        self.queue.clear();
        self.state = State::Shut;
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// A harsh network loses one packet and not those behind it.
    pub fn lose(&mut self, at: usize) {
        self.queue.remove(at);
    }

    /// Whether a packet can still be added.
    pub fn open(&self) -> bool {
        self.state == State::Open
    }
}

/// A connection that the source opened.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Connection {
    pub to_receiver: Pipe,
    pub to_source: Pipe,
}

/// A direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    ToReceiver,
    ToSource,
}

impl Connection {
    pub fn way(&self, way: Way) -> &Pipe {
        match way {
            Way::ToReceiver => &self.to_receiver,
            Way::ToSource => &self.to_source,
        }
    }

    pub fn way_mut(&mut self, way: Way) -> &mut Pipe {
        match way {
            Way::ToReceiver => &mut self.to_receiver,
            Way::ToSource => &mut self.to_source,
        }
    }

    /// The source closes its end.
    pub fn source_leaves(&mut self) {
        self.to_receiver.close();
        self.to_source.shut();
    }

    /// The receiver closes its end.
    pub fn receiver_leaves(&mut self) {
        self.to_source.close();
        self.to_receiver.shut();
    }
}
