//! The source's process: the guest, and what drives [`migrate::source::Source`], as vmm-lite's
//! `migration::source` does it.

use std::{collections::VecDeque, time::Duration};

use migrate::{
    PAGE, ReceiverId,
    offer::Offer,
    page_set::PageSet,
    precopy::{Few, Policy},
    source::{Action, Ended, Event, Sent, Settings, Source, Stopped},
    wire::Message,
};

use super::{
    link::{Connection, Memory, PAGES, Packet, Way},
    world::{Bounds, Moves, Remembered, World, move_id},
};

/// The process that has the VM.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    pub memory: Memory,
    dirty: [bool; PAGES],
    /// Whether the guest's instructions are run.
    pub runs: bool,
    /// Whether the fence keeps it from running.
    pub fenced: bool,
    /// Whether the VM has ended here because it is elsewhere.
    pub moved: bool,
    /// The attempt under way.
    pub mover: Option<Mover>,
}

/// An attempt under way: the state machine and its driver.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mover {
    pub machine: Source,
    pub number: usize,
    pub connection: Option<usize>,
    /// The open actions of the state machine.
    pub tasks: VecDeque<Action>,
    /// The state that goes with the commit.
    held: Vec<u8>,
}

/// A state.
const STATE: [u8; 1] = [1];

/// How a task ends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Done {
    /// As asked for.
    Well,
    /// As requested; the guest answered, and hints its last page.
    WellWithoutLastPage,
    /// It fails.
    Badly,
    /// The client that requested the move has disconnected.
    Cancelled,
}

impl Origin {
    pub fn new() -> Self {
        Self {
            memory: [1; PAGES],
            dirty: [false; PAGES],
            runs: true,
            fenced: false,
            moved: false,
            mover: None,
        }
    }

    pub fn try_number(&self) -> Option<usize> {
        self.mover.as_ref().map(|m| m.number)
    }

    /// The guest writes.
    pub fn write(&mut self, page: usize) {
        self.memory[page] += 1;
        self.dirty[page] = true;
    }

    fn changed(&self) -> PageSet {
        let mut pages = PageSet::none(PAGES);
        (0..PAGES).filter(|n| self.dirty[*n]).for_each(|n| pages.insert(n));
        pages
    }

    fn content(&self, pages: &PageSet) -> Packet {
        Packet::Pages(std::array::from_fn(|n| pages.contains(n).then_some(self.memory[n])))
    }
}

/// Time is left out: every duration of the settings is zero, so that a deadline passes whenever the
/// checker chooses. Only a round takes long, so that what the guest dirtied meanwhile decides
/// whether there is another.
#[allow(clippy::needless_update, reason = "what they get beside is as it comes")]
fn settings(bounds: &Bounds) -> Settings {
    const NONE: Duration = Duration::ZERO;
    let policy = Policy { few: Few::Time(NONE), rounds_max: 2, ..Policy::default() };
    let (quiesce, quiesce_expected, answer, prepare) = (NONE, NONE, NONE, NONE);
    let usual = Settings::default();
    Settings {
        mode: bounds.mode,
        together: bounds.together,
        urgent_rounds: 1,
        policy,
        max_blackout: NONE,
        quiesce,
        quiesce_expected,
        answer,
        prepare,
        ..usual
    }
}

fn offer() -> Offer {
    Offer {
        receiver: ReceiverId::default(),
        name: "vm".into(),
        memory_size: (PAGES * PAGE) as u64,
        interface_version: 1,
        network: false,
        identity: Vec::new(),
    }
}

fn only_last_page() -> PageSet {
    let mut pages = PageSet::none(PAGES);
    pages.insert(PAGES - 1);
    pages
}

impl World {
    fn mover(&mut self) -> &mut Mover {
        self.origin.as_mut().and_then(|o| o.mover.as_mut()).expect("a move is under way")
    }

    fn origin(&mut self) -> &mut Origin {
        self.origin.as_mut().expect("the source's process is alive")
    }

    /// A client requests a move: a connection is open, and the state machine begins.
    pub fn begin(&mut self, model: &Moves) {
        let number = self.tries.len();
        self.tries.push(Remembered::default());
        self.connections.push(Connection::default());
        let (machine, actions) =
            Source::begin(move_id(number), offer(), settings(&model.bounds), Duration::ZERO);
        let connection = Some(self.connections.len() - 1);
        let (tasks, held) = (VecDeque::new(), Vec::new());
        self.origin().mover = Some(Mover { machine, number, connection, tasks, held });
        self.source_acts(model, actions);
    }

    pub fn source_event(&mut self, model: &Moves, event: Event) {
        let mover = self.mover();
        let now = match &event {
            Event::Message(Message::RoundDone(_)) => Duration::from_secs(1),
            Event::Tick => mover.machine.deadline().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let actions = model.mutation.source(move_id(mover.number), &mut mover.machine, event, now);
        self.source_acts(model, actions);
    }

    fn source_acts(&mut self, model: &Moves, actions: Vec<Action>) {
        for action in actions {
            #[allow(unreachable_patterns)]
            match action {
                Action::Send(message) => self.source_sends(model, message),
                Action::SwitchHint => self.source_sends(model, Message::SwitchHint(Vec::new())),
                Action::Commit(id) => {
                    if self.runs_at_source() {
                        self.broken = Some("a commit while the guest runs");
                    }
                    let held = std::mem::take(&mut self.mover().held);
                    let sent = !held.is_empty();
                    self.source_sends(model, Message::Commit(id, held));
                    if sent {
                        self.source_event(model, Event::Sent(Sent::default()));
                    }
                }
                Action::StartLog
                | Action::SendPages { .. }
                | Action::Announce { .. }
                | Action::SendFollowing(_)
                | Action::PeekDirty
                | Action::TakeDirty
                | Action::Stop { .. }
                | Action::SendLast { .. } => self.mover().tasks.push_back(action),
                Action::Reconnect { .. } => {
                    self.source_hangs_up();
                    // In the model anything may take any time, so a wait changes nothing.
                    self.mover().tasks.push_back(Action::Reconnect { wait: false });
                }
                Action::Fence => self.origin().fenced = true,
                Action::RunHere => {
                    let number = self.mover().number;
                    let remembered = &mut self.tries[number];
                    remembered.resumed |= remembered.committed;
                    let origin = self.origin();
                    (origin.fenced, origin.runs) = (false, true);
                }
                // Forwarded packets continue until the end, and are not part of the model.
                Action::HandOn => {}
                Action::End(ended) => {
                    if ended == Ended::Moved {
                        self.source_sends(model, Message::ForwardedEnd);
                    }
                    self.source_hangs_up();
                    let number = self.mover().number;
                    self.tries[number].failed = matches!(ended, Ended::Failed(_));
                    let origin = self.origin();
                    origin.moved = ended == Ended::Moved;
                    origin.mover = None;
                    return;
                }
                // Add a new action of the source here if it cannot fail, and as a task above if it
                // can.
                _ => self.broken = Some("the model does not know an action of the source"),
            }
        }
    }

    fn source_sends(&mut self, model: &Moves, message: Message) {
        match self.mover().connection {
            Some(at) => self.send(model, at, Way::ToReceiver, message),
            None if matches!(message, Message::Commit(..)) => {
                self.broken = Some("a commit without a connection")
            }
            None => {}
        }
    }

    fn source_hangs_up(&mut self) {
        if let Some(at) = self.mover().connection.take() {
            self.connections[at].source_leaves();
        }
    }

    /// The thread that moves the VM dies. What it held is dropped.
    pub fn mover_dies(&mut self) {
        self.source_hangs_up();
        self.origin().mover = None;
    }

    /// The source reads from its connection: a message, or the end.
    pub fn source_reads(&mut self, model: &Moves) {
        let at = self.mover().connection.expect("a connection to read from");
        let event = match self.connections[at].to_source.pop() {
            Some(Packet::Message(message)) => Event::Message(message),
            Some(Packet::Pages(_)) => Event::LinkLost("the destination sent pages".into()),
            None => {
                self.source_hangs_up();
                Event::LinkLost("closed".into())
            }
        };
        self.source_event(model, event);
    }

    /// The driver carries out the next task.
    pub fn source_does(&mut self, model: &Moves, done: Done) {
        let task = self.mover().tasks.pop_front().expect("a task");
        let event = match (task, done) {
            (Action::Reconnect { .. }, Done::Well) => {
                self.questions += 1;
                self.connections.push(Connection::default());
                self.mover().connection = Some(self.connections.len() - 1);
                Event::Reconnected
            }
            (Action::Reconnect { .. }, _) => Event::LinkLost("no listener there".into()),
            (_, Done::Badly) => return self.task_fails(model, Event::Failed("no".into())),
            (_, Done::Cancelled) => return self.task_fails(model, Event::Cancel("no".into())),
            (Action::StartLog, _) => {
                self.origin().dirty = [false; PAGES];
                return;
            }
            (Action::SendPages { round, pages }, _) => {
                self.source_pushes(&pages);
                self.source_sends(model, Message::RoundEnd(round));
                sent(&pages)
            }
            (Action::Announce { round, pages }, _) => {
                self.source_sends(model, Message::Follow(pages.runs().collect()));
                self.source_sends(model, Message::RoundEnd(round));
                Event::Sent(Sent::default())
            }
            (Action::SendFollowing(pages), _) => {
                self.source_pushes(&pages);
                sent(&pages)
            }
            (Action::PeekDirty, done) => {
                Event::Peeked { dirty: self.origin().changed(), page_hints: page_hints(done) }
            }
            (Action::TakeDirty, done) => {
                let dirty = self.origin().changed();
                self.origin().dirty = [false; PAGES];
                Event::Dirty { dirty, page_hints: page_hints(done) }
            }
            (Action::Stop { .. }, done) => self.stop(done),
            (Action::SendLast { pages, follow, hold }, _) => {
                if !follow.is_empty() {
                    self.source_sends(model, Message::Follow(follow.runs().collect()));
                }
                self.source_pushes(&pages);
                if hold {
                    self.mover().held = STATE.to_vec();
                    Event::Held
                } else {
                    self.source_sends(model, Message::State(STATE.to_vec()));
                    sent(&pages)
                }
            }
            (_, _) => unreachable!("only these become tasks"),
        };
        self.source_event(model, event);
    }

    fn task_fails(&mut self, model: &Moves, event: Event) {
        // The actions that were requested together with it are dropped.
        self.mover().tasks.clear();
        self.source_event(model, event);
    }

    fn stop(&mut self, done: Done) -> Event {
        let number = self.mover().number;
        let origin = self.origin();
        origin.runs = false;
        let (dirty, page_hints) = (origin.changed(), page_hints(done));
        let memory = std::array::from_fn(|n| (!page_hints.contains(n)).then_some(origin.memory[n]));
        self.tries[number].stopped = Some(memory);
        Event::Stopped(Stopped {
            requested: Duration::ZERO,
            stopped: Duration::ZERO,
            quiescent: done == Done::WellWithoutLastPage,
            dirty,
            page_hints,
            needed: Vec::new(),
        })
    }

    fn source_pushes(&mut self, pages: &PageSet) {
        let content = self.origin().content(pages);
        if let (false, Some(at)) = (pages.is_empty(), self.mover().connection) {
            self.connections[at].to_receiver.push(content);
        }
    }
}

fn sent(pages: &PageSet) -> Event {
    let full = pages.len() as u64;
    Event::Sent(Sent { bytes: full * PAGE as u64, full, ..Sent::default() })
}

fn page_hints(done: Done) -> PageSet {
    if done == Done::WellWithoutLastPage { only_last_page() } else { PageSet::none(PAGES) }
}
