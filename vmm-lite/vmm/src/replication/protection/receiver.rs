//! Waits for a VM that is to be protected by this process, for `vmm-lite standby`.

use super::{
    Arbiter, Beside, Member,
    channel::Channel,
    feed::Kept,
    late::Late,
    offer::Offer,
    set::{Beginning, Part, Peer, Set, event},
    thread,
};
use crate::{
    devices::{console::Console, gate::Gate},
    host::{
        confine::Thread,
        poll::{Watch, wait_some},
        watchdog::{self, Doing},
    },
    kvm::cpu::Model,
    migration::{
        Error,
        connection::{Connection, LinkError, Transport},
        destination::{
            Offering,
            made::Made,
            stage::{Stage, Stages},
        },
        handover::Handover,
        listener::{Service, Session},
    },
    replication::journal::Refused,
    vm::{Operation, Position, RecordOptions, Vm},
};
use migrate::replication::{
    Settings, Standby,
    arbiter::{Answer, MemberId, Request, SetId},
    wire::{Message, Seed, Seeding},
};
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    time::{Duration, Instant},
};

/// How long the primary may be silent while it seeds this standby.
const SILENCE: Duration = Duration::from_secs(10);

/// A standby that waits for its VM. Given to [`serve`](crate::migration::listener::serve).
#[derive(Debug)]
pub struct StandbyReceiver {
    me: MemberId,
    settings: Settings,
    /// What the VM gets from this process, until there is one.
    free: Mutex<Option<Free>>,
    seeded: Sender<Seeded>,
    stages: Stages,
}

#[derive(Debug)]
struct Free {
    offering: Offering,
    beside: Beside,
}

/// A VM of which this process has a copy now.
#[derive(Debug)]
pub struct Seeded {
    /// The VM. It replays what the primary does.
    pub vm: Vm,
    /// This process's part.
    pub member: Member,
    /// The primary's address, for people.
    pub from: String,
}

impl StandbyReceiver {
    /// A standby that passes its VM to `seeded`. `settings` are this host's: the primary's
    /// heartbeats and commit mode come with the VM.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::Event`].
    pub fn new(
        offering: Offering,
        beside: Beside,
        settings: Settings,
        seeded: Sender<Seeded>,
    ) -> Result<Self, Error> {
        let me = MemberId(crate::host::random::bytes().map_err(Error::Random)?);
        let free = Mutex::new(Some(Free { offering, beside }));
        Ok(Self { me, settings, free, seeded, stages: Stages::new()? })
    }

    fn free(&self) -> MutexGuard<'_, Option<Free>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a VM for the offer, and fills it until the primary says where it stands.
    fn receive(
        &self,
        channel: &mut Channel,
        offering: &Offering,
        source: &str,
    ) -> Result<(Made, Offer, Seed), String> {
        let link = |e: LinkError| crate::host::with_causes(&e);
        let Message::Seeding(Seeding::Offer(offer)) = channel.receive(SILENCE).map_err(link)?
        else {
            return Err("it offered no VM".into());
        };
        let made = judge(&offer).and_then(|offer| Ok((make(&offer, offering)?, offer)));
        let (made, offer) = match made {
            Ok(made) => made,
            Err(why) => {
                say(channel, Seeding::Refuse(why.clone())).map_err(link)?;
                return Err(why);
            }
        };
        say(channel, Seeding::Accept).map_err(link)?;
        fail_point!("protection.welcomed");
        let ran = || "the VM ran already".to_owned();
        loop {
            match channel.receive(SILENCE).map_err(link)? {
                Message::Seeding(Seeding::Pages(numbers, content)) => {
                    let memory = made.vm.unstarted_memory().ok_or_else(ran)?;
                    let (pages, _) = content.as_chunks();
                    for (number, page) in numbers.iter().zip(pages) {
                        memory
                            .write_page(*number as usize, page)
                            .map_err(|e| crate::host::with_causes(&e))?;
                    }
                }
                Message::Seeding(Seeding::Seed(seed)) => return Ok((made, offer, seed)),
                _ => return Err(format!("{source} sent something else than pages")),
            }
        }
    }

    /// The VM follows the primary from where it stands.
    fn follow(
        &self,
        (vm, seed, offer): (&Vm, &Seed, &Offer),
        (id, primary): (SetId, MemberId),
        beside: Beside,
    ) -> Result<Arc<Set>, String> {
        let vm_error = |e: crate::vm::Error| crate::host::with_causes(&e);
        let io_error = |e: std::io::Error| crate::host::with_causes(&e);
        let handover = Handover::from_bytes(&seed.state).map_err(|e| e.to_string())?;
        let gate = Gate::new();
        gate.stand_by(seed.position.saturating_sub(1));
        let mut held = vm.hold().map_err(vm_error)?;
        held.apply(&handover.state, Duration::ZERO).map_err(vm_error)?;
        held.hold_output(&gate).map_err(vm_error)?;
        let settings =
            Settings { heartbeat: offer.heartbeat, misses: offer.misses, ..self.settings };
        let (wake, epoch) = (event().map_err(io_error)?, Instant::now());
        let members = (self.me, primary);
        let machine = Standby::begin(members, id, settings, seed.position, Duration::ZERO);
        let feed = thread::feed_of(seed.position, &wake).map_err(vm_error)?;
        // What the primary allows is in the image, and was judged there.
        let record = RecordOptions {
            check_every: super::member::CHECK_EVERY,
            allow_own_clock: true,
            ..RecordOptions::default()
        };
        let beginning = Beginning {
            me: self.me,
            id,
            settings,
            record,
            beside,
            gate: Arc::clone(&gate),
            last: seed.position,
            wake,
            epoch,
            part: Part::Standby(machine, Arc::clone(&feed)),
        };
        let set = Set::new(vm, beginning).map_err(io_error)?;
        vm.keep_quiet(true);
        let late = Late::new(held.packets_in_transit().map_err(vm_error)?, false);
        let standing_by = vm.begin(Operation::StandBy).map_err(vm_error)?;
        let mut core = set.lock();
        (core.late, core.standing_by) = (Some(late), Some(standing_by));
        drop(core);
        let at = Position { record: seed.position, samples: seed.samples as usize };
        thread::follow(held, &feed, at, Kept(gate)).map_err(vm_error)?;
        Ok(set)
    }

    fn be_seeded(
        &self,
        mut channel: Channel,
        from: (SetId, MemberId),
        source: &str,
    ) -> Result<(), String> {
        let Some(Free { offering, mut beside }) = self.free().take() else {
            let why = "this standby has a VM, or is being seeded: start another one".to_owned();
            // A peer that is gone does not receive it.
            let _ = say(&mut channel, Seeding::Refuse(why.clone()));
            return Err(why);
        };
        let _attends = watchdog::attend(Thread::Receive.name());
        let _owes = watchdog::owe(Doing::Receive);
        let output = offering.output.as_ref().map(OwnedFd::try_clone);
        let welcomed = match asks_the_same(&mut *beside.arbiter, from) {
            Ok(()) => say(&mut channel, Seeding::Welcome(self.me))
                .map_err(|e| crate::host::with_causes(&e)),
            Err(why) => {
                // A peer that is gone does not receive it.
                let _ = say(&mut channel, Seeding::Refuse(why.clone()));
                Err(why)
            }
        };
        let received = welcomed.and_then(|()| self.receive(&mut channel, &offering, source));
        let (Made { vm, mut name, .. }, offer, seed) = match received {
            Ok(received) => received,
            Err(why) => {
                *self.free() = Some(Free { offering, beside });
                return Err(why);
            }
        };
        let set = match self.follow((&vm, &seed, &offer), from, beside) {
            Ok(set) => set,
            Err(why) => {
                // The arbiter's socket is gone with it; nothing else can be done with this process.
                let _ = say(&mut channel, Seeding::Refuse(why.clone()));
                self.stages.enter(Stage::Over);
                return Err(why);
            }
        };
        if let Some(Ok(output)) = output {
            set.lock().output = Some(output);
        }
        fail_point!("protection.following");
        say(&mut channel, Seeding::Ready).map_err(|e| crate::host::with_causes(&e))?;
        set.lock().peers.insert(from.1, Peer { channel, address: source.to_owned() });
        thread::start(&set).map_err(|e| crate::host::with_causes(&e))?;
        name.open();
        let member = Member::of(vm.clone(), Some(set));
        // The process waits for it.
        let _ = self.seeded.send(Seeded { vm, member, from: source.to_owned() });
        self.stages.enter(Stage::Over);
        Ok(())
    }
}

impl Service for StandbyReceiver {
    fn stages(&self) -> &Stages {
        &self.stages
    }

    fn taken(&self) -> bool {
        self.free().is_none()
    }

    fn serve(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        transport: &Transport,
        session: &mut Session,
    ) -> Result<(), Error> {
        let connection = Connection::accept(stream, transport, SILENCE)?;
        let source = connection.other_end();
        let mut channel = Channel::over(connection, true).map_err(LinkError::from)?;
        let Message::Seeding(Seeding::Hello { set, from }) = channel.receive(SILENCE)? else {
            return Err(Error::Nonsense);
        };
        if !session.known() {
            say(&mut channel, Seeding::Refuse("it has too many connections".into()))?;
            return Ok(());
        }
        channel.known();
        if let Err(why) = self.be_seeded(channel, (set, from), &source) {
            eprintln!("vmm-lite: not seeded by {source}: {why}");
        }
        Ok(())
    }
}

/// Whether this standby's arbiter has the primary's record of the set. One that has not would never
/// let it take over.
fn asks_the_same(arbiter: &mut dyn Arbiter, from: (SetId, MemberId)) -> Result<(), String> {
    let (set, primary) = from;
    arbiter.ask(&Request::Read(set));
    let answer = loop {
        if let Some(answer) = arbiter.answer() {
            break answer;
        }
        // It comes in bounded time.
        let watched = [Watch::Readable(arbiter.fd())];
        wait_some(&watched, SILENCE).map_err(|e| crate::host::with_causes(&e))?;
    };
    match answer {
        Answer::Found(Some(there)) if there.record.active == primary => Ok(()),
        Answer::Found(Some(_)) => Err("the arbiter's record names another primary".into()),
        Answer::Found(None) => {
            Err("this standby's arbiter has no record of the VM's replica set: \
                                    give --arbiter of both hosts the same one"
                .into())
        }
        Answer::Unreachable(why) => Err(format!("this standby's arbiter does not answer: {why}")),
        Answer::Swapped(_) | Answer::Conflict(_) => {
            Err("this standby's arbiter gives the answer to another question".into())
        }
    }
}

fn say(channel: &mut Channel, word: Seeding) -> Result<(), LinkError> {
    channel.queue(&Message::Seeding(word))?;
    channel.send_all(SILENCE)
}

/// A VM for the one that is offered.
fn make(offer: &Offer, offering: &Offering) -> Result<Made, String> {
    let identity = &offer.offered.identity;
    let as_moved = migrate::offer::Offer {
        receiver: [0; 16],
        name: identity.name.clone(),
        interface_version: identity.interface_version,
        memory_size: identity.memory_size,
        network: !identity.nets.is_empty(),
        identity: Vec::new(),
    };
    Made::new(&as_moved, offer.offered.clone(), offering, Console::new(None))
        .map_err(|refusal| refusal.to_string())
}

/// Whether this host can execute what the primary does.
fn judge(offer: &[u8]) -> Result<Offer, String> {
    let offer = Offer::from_bytes(offer)
        .map_err(|e| format!("{e}: run the same vmm-lite on both hosts"))?;
    let here = Model::of_this_host();
    if offer.cpu != here {
        let refused = Refused { there: offer.cpu.to_string(), here: here.to_string() };
        return Err(refused.to_string());
    }
    Ok(offer)
}
