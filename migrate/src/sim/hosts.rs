//! The two hosts, and the guest on them.

mod at_destination;
mod at_source;

use std::time::Duration;

use super::{
    guest::{Guest, PAGES},
    link::{Cut, Link, To},
};
use crate::{
    MoveId, PAGE, ReceiverId,
    destination::{self, Destination, Ledger},
    offer::Offer,
    precopy::{Few, Policy},
    report::Report,
    source::{self, Ended, Mode, Settings, Source},
};
use at_destination::fresh;

const STEP: Duration = Duration::from_micros(10);
const RECEIVER: ReceiverId = [7; 16];
/// Pages that the VMM needs before the guest runs.
const NEEDED: std::ops::Range<usize> = 0..6;
/// Of these, those that the source knows before the guest is stopped.
const FIRST: usize = 4;

/// The whole simulation.
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
    /// Whether the VM there has all of its memory, by the state machine's actions.
    complete: bool,
    state_there: Option<Vec<u8>>,
    stopped_memory: Option<Vec<u64>>,
    /// The state that goes with the commit.
    held: Vec<u8>,
    link: Link,
    /// Pages that the guest touched at the destination and found right.
    touched: usize,
    committed: bool,
    tries: u8,
    /// Steps until the guest at the destination is at full speed.
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
        // Rounds that never look short enough, so that some pages are left for post-copy.
        let policy = Policy { few: Few::Time(Duration::ZERO), rounds_max: 3, ..Policy::default() };
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
            complete: false,
            state_there: None,
            stopped_memory: None,
            held: Vec::new(),
            link: Link::new(cuts),
            touched: 0,
            committed: false,
            tries: 0,
            settle_in: 0,
        };
        world.act(actions);
        world
    }

    pub fn messages(&self) -> usize {
        self.link.messages()
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

    /// Whether the VM at the destination may be copied or moved on: all of its memory is there.
    pub fn complete(&self) -> bool {
        self.complete
    }

    /// Whether the source has ended its VM and dropped the memory.
    pub fn source_let_go(&self) -> bool {
        self.ended == Some(Ended::Moved)
    }

    /// The memory of the VM at the destination, and that of the guest when it left the source.
    pub fn memories(&self) -> Option<(&[u64], &[u64])> {
        self.there.as_deref().zip(self.stopped_memory.as_deref())
    }

    /// The VM has left the destination for a third host.
    pub fn leaves(&mut self) {
        self.destination_event(destination::Event::VmEnded);
    }

    pub fn try_again(&mut self) {
        self.tries += 1;
        self.link.again();
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
            let page_hints = self.guest.page_hints();
            for page in (0..PAGES).filter(|p| !page_hints.contains(*p)) {
                assert_eq!(there[page], stopped[page], "{what}: page {page}");
            }
        }
    }

    /// Takes the next step; `false` if there is none.
    pub fn step(&mut self) -> bool {
        self.now += STEP;
        if self.runs_here {
            self.guest.run();
        } else if self.there.is_some() {
            self.touch();
            self.settle();
        }
        if let Some((to, message)) = self.link.next() {
            match (to, message) {
                (To::Destination, Some(message)) => self.at_destination(message),
                (To::Source, Some(message)) => self.at_source(message),
                (_, None) => {}
            }
            if self.link.breaks() {
                self.destination_event(destination::Event::LinkLost("cut".into()));
                self.source_event(source::Event::LinkLost("cut".into()));
            }
        } else if self.settle_in > 0 {
            // Nothing is in transit, and the guest runs.
        } else if self.ended.is_none() {
            // Nothing is in transit: only time can advance the move.
            let Some(at) = self.source.deadline() else { return false };
            self.now = self.now.max(at);
            self.source_event(source::Event::Tick);
        } else {
            return false;
        }
        true
    }
}

fn id(n: u8) -> MoveId {
    [n; 16]
}
