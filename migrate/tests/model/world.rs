//! The whole model: the source's process, the receiving process, the connections between them, and
//! the history that an observer remembers.

use migrate::{MoveId, page_set::PageSet, source::Mode, wire::Message};

use super::{
    link::{Connection, Memory, PAGES, Packet, Way},
    mutation::Mutation,
    receiver::Receiver,
    source::Origin,
};

/// Bounds on what may happen, and how often.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Attempts to move the VM.
    pub tries: usize,
    /// Connections that query the outcome of an attempt.
    pub questions: usize,
    /// Writes of the guest at the source.
    pub writes: u8,
    /// Times that the receiving process dies and another takes its place.
    pub restarts: u8,
    /// Whether the source's process may die, or just the thread that moves the VM.
    pub source_dies: bool,
    /// Whether the drivers' actions may fail, and whether a client may cancel.
    pub failures: bool,
    /// Whether the guest may hint a page.
    pub page_hints: bool,
    /// How memory is transferred: with [`Mode::Hybrid`] there is post-copy.
    pub mode: Mode,
    /// Whether the commit is sent with the state, rather than after the receiver has applied it.
    pub together: bool,
    /// Whether connections break.
    pub breaks: bool,
    /// What a network does that is not TCP.
    pub harsh: Harsh,
}

/// Single packets lost or duplicated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Harsh {
    /// How many packets may be lost from between others.
    pub losses: u8,
    /// How many packets may arrive again, at any later time.
    pub copies: u8,
    /// Where a copy may arrive.
    pub reach: Reach,
}

/// Where a copy may arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// On the connection that it was sent on.
    SameConnection,
    /// On any connection in the same direction.
    AnyConnection,
}

impl Harsh {
    pub const NONE: Self = Self { losses: 0, copies: 0, reach: Reach::SameConnection };
}

/// The model: what the checker explores.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    pub bounds: Bounds,
    pub mutation: Mutation,
}

/// What an observer remembers of an attempt.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Remembered {
    /// The commit was handed to the network.
    pub committed: bool,
    /// The VM ran at a receiver because of this attempt.
    pub ran: bool,
    /// The source let the VM run again after this attempt's commit.
    pub resumed: bool,
    /// A receiver reported that it never ran.
    pub said_never: bool,
    /// The receiver abandoned the VM because pages are missing.
    pub lost: bool,
    /// The source reported a failure.
    pub failed: bool,
    /// The guest's memory when it was stopped, without the pages that it hinted.
    pub stopped: Option<[Option<u8>; PAGES]>,
}

/// A state of the model.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// `None`: its process is dead, and the VM's memory with it.
    pub origin: Option<Origin>,
    /// `None`: its process is dead.
    pub receiver: Option<Receiver>,
    pub connections: Vec<Connection>,
    pub tries: Vec<Remembered>,
    /// Number of receiving processes so far.
    pub receivers: u8,
    pub questions: usize,
    pub writes: u8,
    pub losses: u8,
    pub copies: u8,
    /// What was sent, with its connection if that matters: a harsh network may repeat it.
    pub sent: Vec<(usize, Way, Message)>,
    /// A rule of the drivers that a state machine broke, or an action that this model does not
    /// know.
    pub broken: Option<&'static str>,
}

/// The receiving process number `n`.
pub fn receiver_id(n: u8) -> [u8; 16] {
    [n; 16]
}

/// The move of attempt number `n`.
pub fn move_id(n: usize) -> MoveId {
    [n as u8; 16]
}

/// The attempt that a move's number belongs to.
pub fn try_of(id: &MoveId) -> usize {
    usize::from(id[0])
}

impl World {
    pub fn new() -> Self {
        Self {
            origin: Some(Origin::new()),
            receiver: Some(Receiver::new(0)),
            connections: Vec::new(),
            tries: Vec::new(),
            receivers: 1,
            questions: 0,
            writes: 0,
            losses: 0,
            copies: 0,
            sent: Vec::new(),
            broken: None,
        }
    }

    /// Hands a message to a connection.
    pub fn send(&mut self, model: &Moves, at: usize, way: Way, message: Message) {
        if way == Way::ToReceiver && matches!(message, Message::Commit(..)) {
            // Recorded even if the connection is broken: the source cannot know.
            if let Some(number) = self.origin.as_ref().and_then(Origin::try_number) {
                self.tries[number].committed = true;
            }
        }
        if model.bounds.harsh.copies > self.copies {
            let at = if model.bounds.harsh.reach == Reach::AnyConnection { 0 } else { at };
            let entry = (at, way, message.clone());
            if !self.sent.contains(&entry) {
                self.sent.push(entry);
            }
        }
        self.connections[at].way_mut(way).push(Packet::Message(message));
    }

    /// Whether the VM runs at the source.
    pub fn runs_at_source(&self) -> bool {
        self.origin.as_ref().is_some_and(|o| o.runs)
    }

    /// Whether the VM runs at the receiver.
    pub fn runs_at_receiver(&self) -> bool {
        self.receiver.as_ref().is_some_and(|r| r.vm)
    }

    /// The source's process dies: what it wrote to its connections may still arrive.
    pub fn source_dies(&mut self) {
        self.origin = None;
        self.connections.iter_mut().for_each(Connection::source_leaves);
    }

    /// The receiving process dies, with the VM if it is there.
    pub fn receiver_dies(&mut self) {
        self.receiver = None;
        self.connections.iter_mut().for_each(Connection::receiver_leaves);
    }

    /// Another receiving process takes its place. It remembers nothing.
    pub fn receiver_starts(&mut self) {
        self.receiver = Some(Receiver::new(self.receivers));
        self.receivers += 1;
    }

    /// Whether `there`, except for missing pages, is the memory of attempt `number`'s guest.
    pub fn whole(&self, number: usize, there: &Memory, lacking: &PageSet) -> bool {
        let Some(stopped) = &self.tries[number].stopped else { return false };
        let right = |n: usize| stopped[n].is_none_or(|was| was == there[n]);
        (0..PAGES).all(|n| lacking.contains(n) || right(n))
    }
}
