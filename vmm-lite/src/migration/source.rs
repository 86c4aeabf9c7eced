//! Moves a VM away: drives [`migrate::source::Source`].

use super::{
    Error,
    address::Address,
    connection::{Connection, Incoming, LinkError, Transport, wait_readable},
    draw, late,
    send_pages::PageSender,
};
use crate::{
    control::Reply,
    memory::PageSet,
    vm::{Paused, Vm, VmPhase},
};
use migrate::{
    Peer, ReceiverId,
    offer::Offer,
    pages::Pages,
    report::Report,
    source::{Action, Ended, Event, Settings, Source},
    wire::Message,
};
use serde::Serialize;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long to wait before asking again a destination that does not answer after the commit.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How long a destination may leave a write or the rest of a message hanging.
const STALLED: Duration = Duration::from_secs(5);

/// What the verb is told while a move is under way.
#[derive(Debug, Serialize)]
struct Progress {
    doing: &'static str,
    rounds: u32,
    bytes_sent: u64,
}

/// Moves `vm` to `to`, tells `reply` how it goes and what it cost, hands on late packets, and ends the VM here.
///
/// # Errors
/// [`Error`]: the VM runs on here.
pub fn migrate(vm: &Vm, to: &str, transport: Transport, reply: &mut Reply) -> Result<(), Error> {
    let to: Address = to.parse()?;
    match vm.phase() {
        VmPhase::Running => {}
        VmPhase::Paused => return Err(Error::Paused),
        VmPhase::Ended(end) => return Err(crate::vm::Error::Ended(end).into()),
    }
    let Some(_mover) = vm.begin_move() else { return Err(Error::Busy) };
    let connection = Connection::open(&to, &transport, None, STALLED)?;
    let mut driver = Driver::new(vm, to, transport, connection)?;
    driver.run(reply)
}

/// A move under way.
struct Driver<'vm> {
    vm: &'vm Vm,
    to: Address,
    transport: Transport,
    /// Whom the move was begun with: nobody else can say what became of it.
    peer: Peer,
    epoch: Instant,
    source: Source,
    events: VecDeque<Event>,
    actions: VecDeque<Action>,
    connection: Option<Connection>,
    /// Held from the stop to the end, so that nobody else can let the VM run meanwhile.
    paused: Option<Paused<'vm>>,
    sender: PageSender,
    pages: usize,
}

impl<'vm> Driver<'vm> {
    fn new(
        vm: &'vm Vm,
        to: Address,
        transport: Transport,
        connection: Connection,
    ) -> Result<Self, Error> {
        let identity = vm.identity();
        let who = postcard::to_stdvec(&(identity, Vm::features()?))
            .expect("an identity has nothing that postcard cannot write");
        let offer = Offer {
            receiver: ReceiverId::default(),
            name: identity.name.clone(),
            memory_size: identity.memory_size,
            interface_version: identity.interface_version,
            network: identity.net.is_some(),
            identity: who,
        };
        let (source, actions) = Source::begin(draw()?, offer, Settings::default(), Duration::ZERO);
        Ok(Self {
            vm,
            to,
            transport,
            peer: connection.peer(),
            epoch: Instant::now(),
            source,
            events: VecDeque::new(),
            actions: actions.into(),
            connection: Some(connection),
            paused: None,
            sender: PageSender::new(),
            pages: vm.ram().pages(),
        })
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    fn run(&mut self, reply: &mut Reply) -> Result<(), Error> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                if let Action::End(ended) = action {
                    return self.end(ended, reply);
                }
                self.act(action, reply);
            }
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.wait(),
            };
            let now = self.now();
            self.actions.extend(self.source.handle(event, now));
        }
    }

    /// Waits for the destination or the deadline.
    fn wait(&mut self) -> Event {
        let patience = self.source.deadline().map_or(STALLED, |at| at.saturating_sub(self.now()));
        let Some(connection) = &mut self.connection else {
            return Event::LinkLost("no connection".into());
        };
        match connection.wait(patience) {
            Ok(false) => Event::Tick,
            Ok(true) => match connection.receive(self.pages) {
                Ok(Incoming::Message(message)) => Event::Message(message),
                Ok(Incoming::Pages(_)) => Event::LinkLost("the destination sent pages".into()),
                Err(e) => self.lost(&e),
            },
            Err(e) => self.lost(&e),
        }
    }

    fn lost(&mut self, e: &LinkError) -> Event {
        self.connection = None;
        Event::LinkLost(crate::cli::with_causes(e))
    }

    fn act(&mut self, action: Action, reply: &mut Reply) {
        match action {
            Action::Send(message) => self.send(&message),
            Action::StartLog => {
                if let Err(e) = self.vm.dirty_log().start() {
                    self.failed(&e);
                }
            }
            Action::SendPages { round, pages } => {
                let progress = Progress {
                    doing: self.source.doing(),
                    rounds: self.source.rounds(),
                    bytes_sent: self.source.bytes(),
                };
                if reply.progress(&progress).is_err() || reply.closed() {
                    self.events.push_back(Event::Cancel("whoever asked for it went away".into()));
                    return;
                }
                self.send_round(round, pages);
            }
            Action::TakeDirty => match self.vm.dirty_log().take() {
                Ok(dirty) => self.events.push_back(Event::Dirty {
                    dirty: pages_of(&dirty),
                    dont_care: Pages::none(self.pages),
                }),
                Err(e) => self.failed(&e),
            },
            Action::Stop { patience } => self.stop(patience),
            Action::SendLast { pages } => self.send_last(&pages),
            Action::Fence => {
                if let Some(paused) = &self.paused {
                    paused.fence(true);
                }
            }
            Action::RunHere => self.run_here(),
            Action::HandOn => {}
            Action::Reconnect => self.reconnect(),
            Action::End(_) => {}
        }
    }

    fn failed(&mut self, e: &dyn std::error::Error) {
        self.events.push_back(Event::Failed(crate::cli::with_causes(e)));
    }

    fn send(&mut self, message: &Message) {
        let Some(connection) = &mut self.connection else { return };
        if let Err(e) = connection.send(message) {
            let event = self.lost(&e);
            self.events.push_back(event);
        }
    }

    fn send_round(&mut self, round: u32, mut pages: Pages) {
        let first = round == 0;
        if first {
            // What nobody ever touched is zero at both ends.
            match self.vm.ram().touched() {
                Ok(touched) => pages.keep(&pages_of(&touched)),
                Err(e) => return self.failed(&e),
            }
        }
        let end = Message::RoundEnd(round);
        if let Some((bytes, full, zero)) = self.send_set(&pages, first, &end) {
            self.events.push_back(Event::PagesSent { bytes, full, zero });
        }
    }

    /// Sends a set and a message behind it; `None` when the link broke, which is an event then.
    fn send_set(&mut self, pages: &Pages, fresh: bool, last: &Message) -> Option<(u64, u64, u64)> {
        let connection = self.connection.as_mut()?;
        let before = connection.sent();
        match self.sender.send(connection, self.vm.ram(), pages, fresh, last) {
            Ok(sent) => Some((connection.sent() - before, sent.full, sent.zero)),
            Err(e) => {
                let event = self.lost(&e);
                self.events.push_back(event);
                None
            }
        }
    }

    fn stop(&mut self, patience: Duration) {
        let paused = match self.vm.quiesce(patience) {
            Ok(paused) => paused,
            Err(e) => return self.failed(&e),
        };
        let (requested, stopped) = paused.times();
        let dont_care = pages_of(&paused.dont_care());
        let quiescent = paused.quiescent();
        self.paused = Some(paused);
        match self.vm.dirty_log().peek() {
            Ok(dirty) => self.events.push_back(Event::Stopped {
                requested: requested.saturating_duration_since(self.epoch),
                stopped: stopped.saturating_duration_since(self.epoch),
                quiescent,
                dirty: pages_of(&dirty),
                dont_care,
            }),
            Err(e) => self.failed(&e),
        }
    }

    fn send_last(&mut self, pages: &Pages) {
        let Some(paused) = &mut self.paused else { return };
        let state = match paused.capture() {
            Ok(state) => state,
            Err(e) => return self.failed(&e),
        };
        let state =
            postcard::to_stdvec(&state).expect("a state has nothing that postcard cannot write");
        if let Some((bytes, full, zero)) = self.send_set(pages, false, &Message::State(state)) {
            self.events.push_back(Event::LastSent { bytes, full, zero });
        }
    }

    fn run_here(&mut self) {
        if let Err(e) = self.vm.dirty_log().stop() {
            tracing::warn!("{}", crate::cli::with_causes(&e));
        }
        let Some(paused) = self.paused.take() else { return };
        paused.fence(false);
        if let Err(e) = paused.resume_here() {
            tracing::error!("the VM cannot go on: {}", crate::cli::with_causes(&e));
        }
    }

    /// After the commit: connects again to ask, or waits a while for the next try; the end of the VM ends the waiting.
    fn reconnect(&mut self) {
        tracing::warn!(
            "the connection broke at the commit: asking {} what became of the VM",
            self.to
        );
        self.connection = None;
        match Connection::open(&self.to, &self.transport, self.peer, STALLED) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.events.push_back(Event::Reconnected);
            }
            Err(e) => {
                let ended = wait_readable(self.vm.end_fd(), ASK_AGAIN).unwrap_or(true);
                if ended {
                    self.actions.push_back(Action::End(Ended::Moved));
                } else {
                    self.events.push_back(Event::LinkLost(crate::cli::with_causes(&e)));
                }
            }
        }
    }

    fn end(&mut self, ended: Ended, reply: &mut Reply) -> Result<(), Error> {
        if let Ended::Failed(failure) = ended {
            return Err(failure.into());
        }
        let report = self.source.report();
        reply.answer(&answer(&self.to, report.as_ref()));
        let Some(paused) = self.paused.take() else { return Ok(()) };
        if let (Some(connection), Ok(packets)) = (&mut self.connection, paused.late_packets()) {
            match late::hand_on(packets, connection) {
                Ok(count) => tracing::info!("handed on {count} late packets"),
                Err(e) => tracing::warn!("late packets were lost: {}", crate::cli::with_causes(&e)),
            }
        }
        paused.moved()?;
        Ok(())
    }
}

fn answer(to: &Address, report: Option<&Report>) -> crate::control::server::Answer {
    let mut value = serde_json::to_value(report)?;
    value["to"] = to.to_string().into();
    Ok(value)
}

fn pages_of(set: &PageSet) -> Pages {
    Pages::from_words(set.words().to_vec(), set.pages())
}
