//! The hosts, their drivers, and the link.

use std::{collections::VecDeque, time::Duration};

use super::guest::{Guest, PAGES};
use crate::{
    MoveId, PAGE, ReceiverId,
    brownout::{Brownout, Settled},
    destination::{self, Destination, Ledger, Patience},
    offer::Offer,
    report::Report,
    rounds::Policy,
    source::{self, Ended, Mode, Settings, Source},
    wire::{self, Accepted, HEADER_SIZE, Header, Message, Run, Started},
};

/// How the guest gets to its speed at the destination.
pub const SETTLED: Settled =
    Settled { brownout: Brownout::Over(1_000_000), page_faults: 7, lost_ns: 50_000 };
const STEP: Duration = Duration::from_micros(10);
const RECEIVER: ReceiverId = [7; 16];
/// Pages that the VMM needs before the guest runs.
const NEEDED: std::ops::Range<usize> = 0..6;
/// Of these, those that the source knows of before the guest stands.
const FIRST: usize = 4;

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
    settings: Settings,
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
    /// The state that goes with the commit.
    held: Vec<u8>,
    to_destination: VecDeque<Vec<u8>>,
    to_source: VecDeque<Vec<u8>>,
    up: bool,
    /// Where the link breaks, one after the other; each counts from the one before.
    cuts: VecDeque<Cut>,
    since_cut: usize,
    messages: usize,
    /// Pages that the guest touched at the destination and found right.
    touched: usize,
    committed: bool,
    tries: u8,
    /// Steps until the guest at the destination is at its speed.
    settle_in: u32,
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
    pub fn new(guest: Guest, mode: Mode, together: bool, cuts: &[Cut]) -> Self {
        let now = Duration::ZERO;
        // Rounds that never look short enough, so that some pages are left to follow.
        let policy = Policy { last_round: Duration::ZERO, rounds_max: 3 };
        let follows = matches!(mode, Mode::Auto | Mode::Hybrid);
        let max_blackout = if follows { Duration::ZERO } else { Duration::from_secs(1) };
        let settings = Settings {
            mode,
            policy,
            max_blackout,
            first_that_follows: FIRST,
            together,
            ..Settings::default()
        };
        let (source, actions) = Source::begin(id(0), offer(), settings, now);
        let mut world = Self {
            now,
            guest,
            settings,
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
            held: Vec::new(),
            to_destination: VecDeque::new(),
            to_source: VecDeque::new(),
            up: true,
            cuts: cuts.iter().copied().collect(),
            since_cut: 0,
            messages: 0,
            touched: 0,
            committed: false,
            tries: 0,
            settle_in: 0,
        };
        world.act(actions);
        world
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

    pub fn touched(&self) -> usize {
        self.touched
    }

    /// Whether the VM at the destination lacks pages.
    pub fn lacks(&self) -> bool {
        self.there.is_some() && self.destination.as_ref().is_some_and(|d| !d.lacking().is_empty())
    }

    pub fn try_again(&mut self) {
        self.tries += 1;
        self.up = true;
        self.since_cut = 0;
        self.ended = None;
        self.fenced = false;
        self.committed = false;
        self.destination = Some(fresh(self.now));
        let (source, actions) = Source::begin(id(self.tries), offer(), self.settings, self.now);
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
        } else if self.there.is_some() {
            self.touch();
            self.settle();
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
                let message = decode(&bytes);
                if let Message::Accept(_) = message {
                    let given_up = self.guest.dont_care();
                    self.source_event(source::Event::GivenUp(given_up));
                }
                self.source_event(source::Event::Message(message));
            }
            self.maybe_cut();
        } else if self.settle_in > 0 {
            // Nothing is under way, and the guest runs.
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

    /// The guest at the destination gets to its speed.
    fn settle(&mut self) {
        if self.settle_in > 0 {
            self.settle_in -= 1;
            if self.settle_in == 0 {
                self.destination_event(destination::Event::Settled(SETTLED));
            }
        }
    }

    /// The guest looks at a page at the destination: it is right, or the guest waits for it.
    fn touch(&mut self) {
        let page = self.guest.pick();
        let (Some(there), Some(stopped), Some(machine)) =
            (&self.there, &self.stopped_memory, &self.destination)
        else {
            return;
        };
        if machine.lacking().contains(page) {
            self.destination_event(destination::Event::Fault(page));
        } else if !self.guest.dont_care().contains(page) {
            assert_eq!(there[page], stopped[page], "page {page} as the guest sees it");
            self.touched += 1;
        }
    }

    /// Counts a message and says whether it arrives.
    fn passed(&mut self) -> bool {
        let lost = self.cuts.front().is_some_and(|c| c.lost && c.after == self.since_cut);
        self.messages += 1;
        self.since_cut += 1;
        !lost
    }

    fn maybe_cut(&mut self) {
        if self.up && self.cuts.front().is_some_and(|c| self.since_cut > c.after) {
            self.up = false;
            self.since_cut = 0;
            self.cuts.pop_front();
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
                Action::Send(message) => self.send_to_destination(&message),
                Action::Commit(id) => {
                    assert!(
                        self.fenced && !self.runs_here,
                        "a commit from a source that could run"
                    );
                    self.committed = true;
                    let held = std::mem::take(&mut self.held);
                    let with_state = !held.is_empty();
                    self.send_to_destination(&Message::Commit(id, held));
                    if with_state {
                        self.sent(0, 0);
                    }
                }
                Action::Brace => self.send_to_destination(&Message::Brace(Vec::new())),
                Action::StartLog => drop(self.guest.take_dirty()),
                Action::SendPages { round, pages } => {
                    let (full, zero) = self.send_pages(&pages);
                    self.send_to_destination(&Message::RoundEnd(round));
                    self.sent(full, zero);
                }
                Action::Announce { round, pages } => {
                    self.send_to_destination(&Message::Follow(pages.runs().collect()));
                    self.send_to_destination(&Message::RoundEnd(round));
                    self.sent(0, 0);
                }
                Action::PeekDirty => {
                    let dirty = self.guest.dirty();
                    let dont_care = self.guest.dont_care();
                    self.source_event(Event::Peeked { dirty, dont_care });
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
                    self.source_event(Event::Stopped(source::Stopped {
                        requested,
                        stopped,
                        quiescent: true,
                        dirty,
                        dont_care,
                        needed: NEEDED.collect(),
                    }));
                }
                Action::SendLast { pages, follow, hold } => {
                    self.send_to_destination(&Message::Follow(follow.runs().collect()));
                    let (full, zero) = self.send_pages(&pages);
                    if hold {
                        self.held = b"state".to_vec();
                        self.source_event(Event::Held);
                    } else {
                        self.send_to_destination(&Message::State(b"state".to_vec()));
                        self.sent(full, zero);
                    }
                }
                Action::SendFollowing(pages) => {
                    assert!(self.committed && !self.runs_here);
                    let (full, zero) = self.send_pages(&pages);
                    self.sent(full, zero);
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

    fn sent(&mut self, full: u64, zero: u64) {
        let bytes = (full + 1) * 4096;
        self.source_event(source::Event::Sent(source::Sent {
            bytes,
            full,
            zero,
            ..Default::default()
        }));
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
                let outcome = self.ledger.outcome(&id, &receiver);
                if outcome == wire::Outcome::Ran && self.lacks() {
                    self.destination_event(destination::Event::Rejoined);
                    return;
                }
                // A question ends what has not been committed, and is answered from the ledger.
                self.destination_event(destination::Event::Asked);
                let outcome = self.ledger.outcome(&id, &receiver);
                self.to_source.push_back(Message::Outcome(id, outcome).encode());
            }
            Message::Pages(pages) => {
                let content: Vec<_> =
                    pages.iter().map(|(n, page)| (*n, Guest::number(page))).collect();
                self.put(&content);
                let runs = content.iter().map(|(n, _)| (*n, 1)).collect();
                self.destination_event(destination::Event::Pages(runs));
            }
            message => {
                if let Message::Zero(runs) = &message {
                    let zeros: Vec<_> = numbers(runs).map(|n| (n, 0)).collect();
                    self.put(&zeros);
                }
                self.destination_event(destination::Event::Message(message));
            }
        }
    }

    /// Puts pages into the VM's memory: while it runs only those that are missing.
    fn put(&mut self, content: &[(u64, u64)]) {
        let Some(machine) = self.destination.as_ref().filter(|d| d.receives()) else { return };
        let running = machine.runs();
        let memory = if running { &mut self.there } else { &mut self.prepared };
        let Some(memory) = memory else { return };
        for &(page, number) in content {
            if !running || machine.lacking().contains(page as usize) {
                memory[page as usize] = number;
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
                    for _ in 0..if self.up { 2 } else { 0 } {
                        self.to_source.push_back(Message::Preparing.encode());
                    }
                    self.prepared = Some(vec![u64::MAX; PAGES]);
                    let accepted = Accepted { follow: true, apply_ns: 1000 };
                    self.destination_event(Event::Prepared(Ok(accepted)));
                }
                Action::Forget(runs) => {
                    let memory =
                        self.prepared.as_mut().expect("prepared before pages are forgotten");
                    assert!(numbers(&runs).all(|page| page as usize >= FIRST));
                    numbers(&runs).for_each(|page| memory[page as usize] = u64::MAX);
                    self.destination_event(Event::Forgot(Ok(())));
                }
                Action::Supply(page) => panic!("page {page} is neither there nor missing"),
                Action::Complete => self.check_memory("complete"),
                Action::AwaitSource(_) => assert!(self.lacks()),
                Action::Lost(_) => panic!("a source that is there was taken for dead"),
                Action::Brace(_) | Action::Rouse => {}
                Action::Apply(state) => {
                    self.state_there = Some(state);
                    self.destination_event(Event::Applied(Ok(())));
                }
                Action::Run => {
                    let lacking = self.destination.as_ref().map(|d| d.lacking().clone());
                    assert!(
                        NEEDED
                            .clone()
                            .all(|page| lacking.as_ref().is_some_and(|l| !l.contains(page))),
                        "it runs without what the VMM needs"
                    );
                    assert!(!self.runs_here, "the destination runs while the source does");
                    assert_eq!(
                        self.state_there.as_deref(),
                        Some(&b"state"[..]),
                        "it runs without its state"
                    );
                    self.ledger.ran(id.expect("a move that committed said its number"));
                    self.there = self.prepared.take();
                    self.destination_event(Event::Runs(Started::default()));
                    self.settle_in = 3;
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
    let patience =
        Patience { silence: Duration::from_secs(10), lost: Some(Duration::from_secs(60)) };
    Destination::new(RECEIVER, patience, now)
}

fn numbers(runs: &[Run]) -> impl Iterator<Item = u64> {
    runs.iter().flat_map(|&(first, count)| first..first + count)
}

fn id(n: u8) -> MoveId {
    [n; 16]
}

fn decode(bytes: &[u8]) -> Message {
    let (header, body) = bytes.split_first_chunk::<HEADER_SIZE>().expect("a whole message");
    let header = Header::decode(header).expect("a right header");
    wire::decode(&header, body, PAGES).expect("a right body")
}
