//! The hosts, their drivers, and the link.

use std::{collections::VecDeque, time::Duration};

use super::guest::{Guest, PAGES};
use crate::{
    MoveId, PAGE, ReceiverId,
    destination::{self, Destination, Ledger},
    offer::Offer,
    report::Report,
    source::{self, Ended, Settings, Source},
    wire::{self, HEADER_SIZE, Header, Message, Started},
};

const STEP: Duration = Duration::from_micros(10);
const RECEIVER: ReceiverId = [7; 16];

/// Where the link breaks.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// After so many messages in both directions together.
    pub after: usize,
    /// Whether that message is lost too.
    pub lost: bool,
}

/// Everything.
pub struct World {
    now: Duration,
    guest: Guest,
    source: Source,
    /// Whether the vCPU at the source may and does run.
    runs_here: bool,
    fenced: bool,
    ended: Option<Ended>,
    destination: Option<Destination>,
    ledger: Ledger,
    prepared: Option<Vec<u64>>,
    there: Option<Vec<u64>>,
    state_there: Option<Vec<u8>>,
    stopped_memory: Option<Vec<u64>>,
    to_destination: VecDeque<Vec<u8>>,
    to_source: VecDeque<Vec<u8>>,
    up: bool,
    cut: Option<Cut>,
    messages: usize,
    committed: bool,
    tries: u8,
}

fn offer() -> Offer {
    Offer {
        receiver: ReceiverId::default(),
        name: "sim".into(),
        memory_size: (PAGES * PAGE) as u64,
        interface_version: 1,
        network: false,
        identity: Vec::new(),
    }
}

impl World {
    pub fn new(guest: Guest, cut: Option<Cut>) -> Self {
        let now = Duration::ZERO;
        let (source, actions) = Source::begin(id(0), offer(), Settings::default(), now);
        let mut world = Self {
            now,
            guest,
            source,
            runs_here: true,
            fenced: false,
            ended: None,
            destination: Some(fresh(now)),
            ledger: Ledger::new(RECEIVER),
            prepared: None,
            there: None,
            state_there: None,
            stopped_memory: None,
            to_destination: VecDeque::new(),
            to_source: VecDeque::new(),
            up: true,
            cut,
            messages: 0,
            committed: false,
            tries: 0,
        };
        world.act(actions);
        world
    }

    pub fn cut(&mut self, cut: Cut) {
        self.cut = Some(cut);
    }

    pub fn messages(&self) -> usize {
        self.messages
    }

    pub fn committed(&self) -> bool {
        self.committed
    }

    pub fn source_runs(&self) -> bool {
        self.runs_here
    }

    pub fn destination_runs(&self) -> bool {
        self.there.is_some()
    }

    pub fn report(&self) -> Option<Report> {
        self.source.report()
    }

    pub fn try_again(&mut self) {
        self.tries += 1;
        self.up = true;
        self.cut = None;
        self.ended = None;
        self.fenced = false;
        self.committed = false;
        self.destination = Some(fresh(self.now));
        let (source, actions) =
            Source::begin(id(self.tries), offer(), Settings::default(), self.now);
        self.source = source;
        self.act(actions);
    }

    pub fn check_memory(&self, what: &str) {
        if let (Some(there), Some(stopped)) = (&self.there, &self.stopped_memory) {
            let dont_care = self.guest.dont_care();
            for page in (0..PAGES).filter(|p| !dont_care.contains(*p)) {
                assert_eq!(there[page], stopped[page], "{what}: page {page}");
            }
        }
    }

    /// Does the next thing; false when there is none.
    pub fn step(&mut self) -> bool {
        self.now += STEP;
        if self.runs_here {
            self.guest.run();
        }
        if let Some(bytes) = self.to_destination.pop_front() {
            let up = self.passed();
            if up {
                self.at_destination(&bytes);
            }
            self.maybe_cut();
        } else if let Some(bytes) = self.to_source.pop_front() {
            let up = self.passed();
            if up {
                let event = source::Event::Message(decode(&bytes));
                self.source_event(event);
            }
            self.maybe_cut();
        } else if self.ended.is_none() {
            // Nothing is under way: only time can help.
            let Some(at) = self.source.deadline() else { return false };
            self.now = self.now.max(at);
            self.source_event(source::Event::Tick);
        } else {
            return false;
        }
        true
    }

    /// Counts a message and says whether it arrives.
    fn passed(&mut self) -> bool {
        let lost = self.cut.is_some_and(|c| c.lost && c.after == self.messages);
        self.messages += 1;
        !lost
    }

    fn maybe_cut(&mut self) {
        if self.up && self.cut.is_some_and(|c| self.messages > c.after) {
            self.up = false;
            self.cut = None;
            self.to_destination.clear();
            self.to_source.clear();
            self.destination_event(destination::Event::LinkLost("cut".into()));
            self.source_event(source::Event::LinkLost("cut".into()));
        }
    }

    fn source_event(&mut self, event: source::Event) {
        let actions = self.source.handle(event, self.now);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<source::Action>) {
        use source::{Action, Event};
        for action in actions {
            match action {
                Action::Send(message) => {
                    if message == Message::Commit {
                        assert!(
                            self.fenced && !self.runs_here,
                            "a commit from a source that could run"
                        );
                        self.committed = true;
                    }
                    self.send_to_destination(&message);
                }
                Action::StartLog => drop(self.guest.take_dirty()),
                Action::SendPages { round, pages } => {
                    let (full, zero) = self.send_pages(&pages);
                    self.send_to_destination(&Message::RoundEnd(round));
                    self.source_event(Event::PagesSent { bytes: (full + 1) * 4096, full, zero });
                }
                Action::TakeDirty => {
                    let dirty = self.guest.take_dirty();
                    let dont_care = self.guest.dont_care();
                    self.source_event(Event::Dirty { dirty, dont_care });
                }
                Action::Stop { .. } => {
                    self.runs_here = false;
                    let requested = self.now;
                    self.now += STEP;
                    self.stopped_memory = Some(self.guest.memory.clone());
                    let (dirty, dont_care) = (self.guest.take_dirty(), self.guest.dont_care());
                    let stopped = self.now;
                    self.source_event(Event::Stopped {
                        requested,
                        stopped,
                        quiescent: true,
                        dirty,
                        dont_care,
                    });
                }
                Action::SendLast { pages } => {
                    let (full, zero) = self.send_pages(&pages);
                    self.send_to_destination(&Message::State(b"state".to_vec()));
                    self.source_event(Event::LastSent { bytes: full * 4096, full, zero });
                }
                Action::Fence => self.fenced = true,
                Action::RunHere => {
                    assert!(self.there.is_none(), "the source resumes though the destination runs");
                    self.runs_here = true;
                }
                Action::HandOn => self.send_to_destination(&Message::LateEnd),
                Action::Reconnect => {
                    self.up = true;
                    self.source_event(Event::Reconnected);
                }
                Action::End(ended) => self.ended = Some(ended),
            }
        }
    }

    fn send_pages(&mut self, pages: &crate::pages::Pages) -> (u64, u64) {
        let (mut full, mut zero) = (0, 0);
        for page in pages.iter() {
            if self.guest.memory[page] == 0 {
                zero += 1;
                self.send_to_destination(&Message::Zero(vec![(page as u64, 1)]));
            } else {
                full += 1;
                let message = Message::Pages(vec![(page as u64, self.guest.page(page))]);
                self.send_to_destination(&message);
            }
        }
        (full, zero)
    }

    fn send_to_destination(&mut self, message: &Message) {
        if self.up {
            self.to_destination.push_back(message.encode());
        }
    }

    fn at_destination(&mut self, bytes: &[u8]) {
        match decode(bytes) {
            Message::Query(id, receiver) => {
                // A question ends what has not been committed, and is answered from the ledger.
                self.destination_event(destination::Event::Asked);
                let outcome = self.ledger.outcome(&id, &receiver);
                self.to_source.push_back(Message::Outcome(outcome).encode());
            }
            Message::Pages(pages) => {
                let receives = self.destination.as_ref().is_some_and(Destination::receives);
                if let (true, Some(memory)) = (receives, &mut self.prepared) {
                    pages.iter().for_each(|(n, page)| memory[*n as usize] = Guest::number(page));
                }
                self.destination_event(destination::Event::Pages);
            }
            message => {
                if let (Message::Zero(runs), Some(memory)) = (&message, &mut self.prepared) {
                    for (first, count) in runs {
                        (*first..first + count).for_each(|n| memory[n as usize] = 0);
                    }
                }
                self.destination_event(destination::Event::Message(message));
            }
        }
    }

    fn destination_event(&mut self, event: destination::Event) {
        use destination::{Action, Event};
        let Some(machine) = &mut self.destination else { return };
        let actions = machine.handle(event, self.now);
        let id = machine.id();
        for action in actions {
            match action {
                Action::Send(message) => {
                    if self.up {
                        self.to_source.push_back(message.encode());
                    }
                }
                Action::Prepare(_) => {
                    self.prepared = Some(vec![u64::MAX; PAGES]);
                    self.destination_event(Event::Prepared(Ok(())));
                }
                Action::Apply(state) => {
                    self.state_there = Some(state);
                    self.destination_event(Event::Applied(Ok(())));
                }
                Action::Run => {
                    assert!(!self.runs_here, "the destination runs while the source does");
                    assert_eq!(
                        self.state_there.as_deref(),
                        Some(&b"state"[..]),
                        "it runs without its state"
                    );
                    self.ledger.ran(id.expect("a move that committed said its number"));
                    self.there = self.prepared.take();
                    self.destination_event(Event::Runs(Started::default()));
                }
                Action::Deliver(_) => {}
                Action::Discard(_) => {
                    assert!(self.there.is_none(), "a VM that runs is thrown away");
                    self.prepared = None;
                }
                Action::End => {}
            }
        }
    }
}

fn fresh(now: Duration) -> Destination {
    Destination::new(RECEIVER, Duration::from_secs(10), now)
}

fn id(n: u8) -> MoveId {
    [n; 16]
}

fn decode(bytes: &[u8]) -> Message {
    let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().expect("a whole message");
    let header = Header::decode(header).expect("a right header");
    wire::decode(&header, body, PAGES).expect("a right body")
}
