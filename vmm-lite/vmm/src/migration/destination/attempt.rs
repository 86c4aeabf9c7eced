//! One move, on a thread of its own.
//!
//! - `acts`: carries out the state machine's actions
//! - `leaving`: what is given up once its VM runs

mod acts;
mod leaving;

use super::{Receiver, SILENCE, prepared::Prepared, rejoin::Rejoin, waiting::Waiting};
use crate::{
    host::poll::{Watch, wait_any},
    migration::{
        connection::{Connection, Incoming},
        timeout,
    },
};
use migrate::{
    MoveId,
    destination::{Destination, Event, GivenUp, Timeouts},
    wire::Message,
};
use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the thread polls for the state: several times what the last rounds and the blackout
/// take.
const AWAKE: Duration = Duration::from_millis(3);
/// The most that it polls, however many of these rounds there are.
const AWAKE_MOST: Duration = Duration::from_millis(20);
/// The interval at which a VM that waits for its source is checked: it may have been stopped.
const LOOK: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Attempt<'r> {
    receiver: &'r Receiver,
    connection: Option<Connection>,
    rejoin: Arc<Rejoin>,
    /// The source is unreachable while pages are missing.
    waiting: Option<Waiting>,
    machine: Destination,
    epoch: Instant,
    events: VecDeque<Event>,
    prepared: Option<Prepared>,
    pages: usize,
    /// When the current message arrived.
    came: Instant,
    /// When the last message was sent.
    spoke: Instant,
    /// When the guest began to run, once it has.
    ran: Instant,
    /// Until when the thread polls for urgent messages.
    awake_until: Instant,
    /// When polling ends in any case.
    awake_most: Instant,
    /// When the last message before the state was sent: the source requested the pause after that
    /// message had arrived.
    before_switch: Instant,
    /// The guest runs, and the brownout was not reported to the state machine yet.
    settles: bool,
    /// This thread has given up the privileges that making a VM needs.
    narrow: bool,
    /// The source has sent its last message.
    heard: bool,
    /// Why it failed.
    discarded: Option<GivenUp>,
}

impl<'r> Attempt<'r> {
    pub fn new(receiver: &'r Receiver, connection: Connection, rejoin: Arc<Rejoin>) -> Self {
        let epoch = Instant::now();
        let timeout = Timeouts { silence: timeout(SILENCE), lost: receiver.lost_after };
        Self {
            receiver,
            connection: Some(connection),
            rejoin,
            waiting: None,
            machine: Destination::new(receiver.me, timeout, Duration::ZERO),
            epoch,
            events: VecDeque::new(),
            prepared: None,
            pages: 0,
            came: epoch,
            spoke: epoch,
            ran: epoch,
            awake_until: epoch,
            awake_most: epoch,
            before_switch: epoch,
            settles: false,
            narrow: false,
            heard: false,
            discarded: None,
        }
    }

    pub fn run(&mut self, id: MoveId) {
        self.events.push_back(Event::Message(Message::Hello(id)));
        while !self.machine.ended() {
            if self.events.is_empty() {
                self.wait();
            }
            while let Some(event) = self.events.pop_front() {
                let actions = self.machine.handle(event, self.epoch.elapsed());
                if let Some(prepared) = self.prepared.as_ref().filter(|_| self.machine.runs()) {
                    prepared.lacks(self.machine.lacks());
                }
                for action in actions {
                    self.act(action);
                }
            }
        }
    }

    /// A VM that did not start, and why.
    pub fn discard(self) -> (Option<Prepared>, Option<GivenUp>) {
        (self.prepared, self.discarded)
    }

    /// Waits for the next event of this move.
    fn wait(&mut self) {
        let now = self.epoch.elapsed();
        let mut timeout = self.machine.deadline().map_or(SILENCE, |at| at.saturating_sub(now));
        // While pages are missing, there are further sources of events.
        let running = self.prepared.as_ref().filter(|_| self.machine.runs());
        let mut watched = [Watch::Readable(-1); 4];
        if let Some(connection) = &self.connection {
            watched[0] = Watch::Readable(connection.fd());
        }
        if let Some(prepared) = running {
            watched[1] = Watch::Readable(prepared.missing.as_ref().map_or(-1, |m| m.fd()));
            watched[2] = Watch::Readable(self.rejoin.fd());
            watched[3] = Watch::Readable(prepared.vm.end_fd());
            timeout = timeout.min(LOOK);
            if let Some(due) = prepared.look_due() {
                timeout = timeout.min(due.saturating_duration_since(Instant::now()));
            }
        }
        if let Some(connection) = &mut self.connection
            && connection.stay_awake(self.awake_until)
        {
            return self.receive();
        }
        let buffered = self.connection.as_ref().is_some_and(Connection::has_buffered);
        let timeout = if buffered { Duration::ZERO } else { timeout };
        match wait_any(watched, timeout) {
            Ok([_, faults, back, ended]) => {
                // First: a reconnected source is answered before anything else is sent to it.
                if back {
                    self.take_back();
                }
                if faults {
                    self.faults();
                }
                if ended {
                    fail_point!("destination.vm-ended");
                    self.events.push_back(Event::VmEnded);
                }
            }
            Err(e) => return self.events.push_back(Event::LinkLost(e.to_string())),
        }
        self.look();
        self.receive();
        if self.events.is_empty() {
            self.events.push_back(Event::Tick);
            if let Some(waiting) = &mut self.waiting {
                waiting.go_on();
            }
            if let Some(prepared) = self.prepared.as_mut().filter(|p| p.vm.stop_wanted()) {
                // Its thread may be waiting for a page.
                drop(prepared.missing.take());
            }
        }
    }

    /// Measures the guest's speed, until the brownout is known.
    fn look(&mut self) {
        let Some(prepared) = self.prepared.as_mut().filter(|_| self.settles) else { return };
        if let Some(settled) = prepared.look(self.machine.waited(self.epoch.elapsed())) {
            self.settles = false;
            self.events.push_back(Event::Settled(settled));
            self.settle();
        }
    }

    /// Receives a message, if there is one.
    fn receive(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        match connection.wait(Duration::ZERO) {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => return self.lost(&e),
        }
        self.came = Instant::now();
        let (machine, prepared) = (&self.machine, self.prepared.as_ref());
        let takes = prepared.filter(|_| machine.receives());
        let lacking = machine.lacking();
        let (taken, event) = match connection.receive(self.pages) {
            Ok(Incoming::Pages(frame)) => {
                let taken = takes.map_or(Ok(()), |prepared| {
                    if machine.runs() {
                        prepared.fill(frame.iter(), lacking)
                    } else {
                        prepared.write(&frame)
                    }
                });
                let runs = if lacking.is_empty() {
                    Vec::new()
                } else {
                    frame.iter().map(|(number, _)| (number as u64, 1)).collect()
                };
                (taken, Event::Pages(runs))
            }
            Ok(Incoming::Message(Message::Heard)) if machine.runs() => {
                self.heard = true;
                return;
            }
            Ok(Incoming::Message(message)) => {
                let taken = if let (Message::Zero(runs), Some(prepared)) = (&message, takes) {
                    if machine.runs() {
                        prepared.fill_zero(runs, lacking)
                    } else {
                        prepared.clear(runs)
                    }
                } else {
                    Ok(())
                };
                (taken, Event::Message(message))
            }
            Err(e) => return self.lost(&e),
        };
        match taken {
            Ok(()) => self.events.push_back(event),
            // Pages that could not be written do not count as received.
            Err(e) => self.lost(&e),
        }
    }

    fn lost(&mut self, e: &dyn std::error::Error) {
        self.connection = None;
        self.events.push_back(Event::LinkLost(crate::host::with_causes(e)));
    }

    /// A thread waits for a page.
    fn faults(&mut self) {
        let Some(missing) = self.prepared.as_mut().and_then(|p| p.missing.as_mut()) else { return };
        match missing.waited_for() {
            Ok(pages) => self.events.extend(pages.into_iter().map(Event::Fault)),
            Err(e) => tracing::error!("{}", crate::host::with_causes(&e)),
        }
    }

    /// The source has reconnected.
    fn take_back(&mut self) {
        if let Some(connection) = self.rejoin.take() {
            eprintln!("vmm-lite: the source is back; the memory that follows goes on");
            self.waiting = None;
            self.connection = Some(connection);
            if let Some(prepared) = &self.prepared {
                prepared.source_is_away(None);
            }
            fail_point!("destination.rejoined");
            self.events.push_back(Event::Rejoined);
        }
    }
}
