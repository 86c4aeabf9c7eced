//! A move in progress: waits for its events, and passes them to the source's state machine. `acts`
//! carries out the resulting actions.

mod acts;

use super::{STALLED, forwarder::Forwarder, options::Options, pace::Pace, send_pages::Packer};
use crate::{
    capture::changes::Changes,
    host::{poll::Watch, urgent::Urgent},
    memory::Complete,
    migration::{
        Error,
        address::Address,
        called_off::{BY_CANCEL, OBSERVER_GONE, VM_ENDED},
        connection::{Connection, Incoming, LinkError, Transport},
        draw,
        offered::Offered,
        progress::{MoveObserver, Watcher},
    },
    vm::{CallOff, CalledOff, Paused, Reclaimed, Vm, VmPhase},
};
use migrate::{
    Peer, ReceiverId,
    offer::Offer,
    page_set::PageSet,
    source::{Action, Event, Source},
    wire::Message,
};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How long the first round waits for page hints of a busy guest, which were requested when the
/// move began.
const RECLAIM: Duration = Duration::from_millis(10);

/// A move in progress.
pub(super) struct Driver<'vm> {
    pub(super) vm: &'vm Vm,
    /// All of its memory is present.
    pub(super) complete: Complete<'vm>,
    to: Address,
    transport: Transport,
    /// The host that the move was begun with: no other host knows the outcome.
    peer: Peer,
    epoch: Instant,
    pub(super) source: Source,
    /// The changes of its memory, from before the first round to the end. If they cannot be logged
    /// that is an event, and what needs them does nothing.
    pub(super) changes: Option<Changes<'vm>>,
    pub(super) events: VecDeque<Event>,
    actions: VecDeque<Action>,
    pub(super) connection: Option<Connection>,
    /// Held from the stop to the end, so that no other thread can let the VM run meanwhile.
    pub(super) paused: Option<Paused<'vm>>,
    /// The priority of this thread, from right before the last round to the end.
    urgent: Urgent,
    /// The priority of the vCPU thread, from the stop to the end.
    urgent_vcpus: Vec<Urgent>,
    forwarder: Option<Forwarder>,
    pub(super) packer: Packer,
    /// The state that is sent with the commit.
    pub(super) held: Vec<u8>,
    /// It is paused at the destination, as it was here.
    pub(super) paused_there: bool,
    /// The destination was asked once more since the operator override.
    asked_since_vouched: bool,
    /// The guest has returned memory for this move.
    pub(super) reclaimed: Option<Reclaimed>,
    /// Pages of the guest's page tables.
    tables: Vec<usize>,
    /// The changes, as last read.
    written: PageSet,
    pub(super) pace: Pace,
    watcher: Watcher,
    pub(super) pages: usize,
    /// Bytes that were in transit when the last were sent, or when waiting for the destination last
    /// timed out since.
    pub(super) on_the_way: u64,
}

impl<'vm> Driver<'vm> {
    pub(super) fn new(
        vm: &'vm Vm,
        complete: Complete<'vm>,
        to: Address,
        transport: Transport,
        connection: Connection,
        options: Options,
        asked: Instant,
    ) -> Result<Self, Error> {
        let identity = vm.identity();
        let offer = Offer {
            receiver: ReceiverId::default(),
            name: identity.name.clone(),
            memory_size: identity.memory_size,
            interface_version: identity.interface_version,
            network: !identity.nets.is_empty(),
            identity: Offered::of(vm).to_bytes(),
        };
        let (source, actions) = Source::begin(draw()?, offer, options.settings(), asked.elapsed());
        Ok(Self {
            vm,
            complete,
            to,
            transport,
            peer: connection.peer(),
            epoch: asked,
            source,
            changes: None,
            events: VecDeque::new(),
            actions: actions.into(),
            connection: Some(connection),
            paused: None,
            urgent: Urgent::default(),
            urgent_vcpus: Vec::new(),
            forwarder: None,
            packer: Packer::new(),
            held: Vec::new(),
            paused_there: false,
            asked_since_vouched: false,
            reclaimed: None,
            tables: Vec::new(),
            written: PageSet::none(0),
            pace: Pace::new(options.bandwidth),
            watcher: Watcher::default(),
            pages: vm.ram().pages(),
            on_the_way: 0,
        })
    }

    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    pub(super) fn run(&mut self, observer: &mut dyn MoveObserver) -> Result<(), Error> {
        loop {
            while let Some(action) = self.actions.pop_front() {
                if let Action::End(ended) = action {
                    return self.end(ended, observer);
                }
                self.act(action, observer);
            }
            let event = match self.events.pop_front() {
                Some(event) => Some(event),
                None => self.wait(observer),
            };
            let now = self.now();
            if let Some(event) = event {
                if let Event::Message(Message::Accept(_)) = event {
                    self.reclaimed = self.vm.wait_reclaimed(RECLAIM);
                    let hinted = self.vm.page_hints();
                    self.actions.extend(self.source.handle(Event::Reclaimed(hinted), self.now()));
                }
                self.watcher.happened(&event, &self.source, now);
                self.actions.extend(self.source.handle(event, now));
                self.watcher.handled(&self.source, now);
            }
        }
    }

    /// Waits for the destination, packets to forward, the deadline, the end of the VM, or the
    /// move's cancellation.
    fn wait(&mut self, observer: &dyn MoveObserver) -> Option<Event> {
        let mut timeout =
            self.source.deadline().map_or(STALLED, |at| at.saturating_sub(self.now()));
        let Some(connection) = &mut self.connection else {
            return Some(Event::LinkLost("no connection".into()));
        };
        let forwarded_fd = self.forwarder.as_ref().map_or(-1, Forwarder::fd);
        if let Some(forwarder) = &self.forwarder {
            timeout = timeout.min(forwarder.due().saturating_duration_since(Instant::now()));
        }
        if !connection.has_buffered() {
            // After the commit nothing can be cancelled any more.
            let committed = self.source.committed();
            let call_off = if committed {
                CallOff::by_end_of(self.vm)
            } else {
                CallOff::of(self.vm, observer.fd())
            };
            // A destination that is being asked is heard first.
            let vouched = if self.source.unknown() { -1 } else { self.vm.vouched_fd() };
            let watched = [connection.fd(), forwarded_fd, vouched].map(Watch::Readable);
            match call_off.wait(&watched, timeout) {
                Ok(Err(CalledOff::Cancelled)) => return Some(Event::Cancel(BY_CANCEL.into())),
                Ok(Err(CalledOff::ObserverGone)) => {
                    return Some(Event::Cancel(OBSERVER_GONE.into()));
                }
                Ok(Err(CalledOff::Ended)) if committed => return Some(Event::Abandoned),
                Ok(Err(CalledOff::Ended)) => return Some(Event::Failed(self.ended())),
                // The state machine has the move's deadline.
                Ok(Err(CalledOff::Timeout(_))) => {}
                Ok(Ok(ready)) if ready[2] => self.vm.refuse_vouching(),
                Ok(Ok(_)) => {}
                Err(e) => return Some(Event::Failed(e.to_string())),
            }
        }
        self.hand_on();
        let Some(connection) = &mut self.connection else {
            return Some(Event::LinkLost("packets could not be forwarded".into()));
        };
        match connection.wait(Duration::ZERO) {
            Ok(false) => self.tick(),
            Ok(true) => Some(match connection.receive(self.pages) {
                Ok(Incoming::Message(message)) => Event::Message(message),
                Ok(Incoming::Pages(_)) => Event::LinkLost("the destination sent pages".into()),
                Err(e) => self.lost(&e),
            }),
            Err(e) => Some(self.lost(&e)),
        }
    }

    /// How the VM ended, other than by a move.
    fn ended(&self) -> String {
        match self.vm.phase() {
            VmPhase::Ended(end) => format!("{VM_ENDED}: {end}"),
            VmPhase::Running | VmPhase::Paused => VM_ENDED.into(),
        }
    }

    /// The destination was silent. While sent bytes still pass through a slow link that is
    /// expected.
    fn tick(&mut self) -> Option<Event> {
        if self.source.deadline().is_none_or(|at| self.now() < at) {
            return None;
        }
        let on_the_way = self.connection.as_ref().map_or(0, Connection::unacknowledged);
        let before = std::mem::replace(&mut self.on_the_way, on_the_way);
        let trickles = (1..before).contains(&on_the_way);
        Some(if trickles { Event::Progress } else { Event::Tick })
    }

    pub(super) fn lost(&mut self, e: &LinkError) -> Event {
        self.connection = None;
        Event::LinkLost(crate::host::with_causes(e))
    }

    /// Forwards waiting packets.
    fn hand_on(&mut self) {
        let (Some(forwarder), Some(connection)) = (&mut self.forwarder, &mut self.connection)
        else {
            return;
        };
        match forwarder.hand_on(connection) {
            Ok(true) => {}
            Ok(false) => self.forwarder = None,
            Err(e) => {
                tracing::warn!("packets to forward were lost: {}", crate::host::with_causes(&e));
                self.connection = None;
            }
        }
    }

    /// Reports progress to the verb.
    fn tell(&mut self, observer: &mut dyn MoveObserver) {
        let now = self.now();
        if self.watcher.tell(observer, now).is_err() {
            self.events.push_back(Event::Cancel(OBSERVER_GONE.into()));
        }
    }

    pub(super) fn failed(&mut self, e: &dyn std::error::Error) {
        self.events.push_back(Event::Failed(crate::host::with_causes(e)));
    }

    fn send(&mut self, message: &Message) {
        let Some(connection) = &mut self.connection else { return };
        if let Err(e) = connection.send(message) {
            let event = self.lost(&e);
            self.events.push_back(event);
        }
    }
}
