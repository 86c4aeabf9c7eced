//! A copy of a VM that another host runs: how it is made, and follows.

use super::{
    Beside,
    channel::Channel,
    feed::Kept,
    late::Late,
    offer::Offer,
    set::{Beginning, Part, Purpose, Set, event},
    thread,
};
use crate::{
    devices::{console::Console, gate::Gate},
    kvm::cpu::Model,
    migration::{
        Error,
        connection::{Connection, LinkError},
        destination::{Offering, made::Made},
        handover::Handover,
        listener::Session,
    },
    replication::journal::Refused,
    vm::{Operation, Position, RecordOptions, Vm},
};
use migrate::replication::{
    Settings, Standby,
    arbiter::{MemberId, SetId},
    wire::{Message, Seed, Seeding},
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// How long the other host may be silent meanwhile.
pub(super) const SILENCE: Duration = Duration::from_secs(10);

/// What the process is there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum For {
    Protection,
    Move,
}

/// A set, and its member that speaks.
pub(super) type Speaker = (SetId, MemberId);

/// Hears who is there, within `first`. `None`: it was sent away.
pub(super) fn greet(
    connection: Connection,
    session: &mut Session,
    first: Duration,
) -> Result<Option<(Channel, Speaker)>, Error> {
    let mut channel = Channel::over(connection, true).map_err(LinkError::from)?;
    let Message::Seeding(Seeding::Hello { set, from }) = channel.receive(first)? else {
        return Err(Error::Nonsense);
    };
    if !session.known() {
        say(&mut channel, Seeding::Refuse("it has too many connections".into()))?;
        return Ok(None);
    }
    channel.known();
    Ok(Some((channel, (set, from))))
}

/// Makes a VM for the offer, and fills it until the primary says where it stands.
pub(super) fn receive(
    channel: &mut Channel,
    offering: &Offering,
    to: For,
    source: &str,
) -> Result<(Made, Offer, Seed), String> {
    let link = |e: LinkError| crate::host::with_causes(&e);
    let Message::Seeding(Seeding::Offer(offer)) = channel.receive(SILENCE).map_err(link)? else {
        return Err("it offered no VM".into());
    };
    let made = judge(&offer, to).and_then(|offer| Ok((make(&offer, offering)?, offer)));
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
pub(super) fn follow(
    (vm, seed, offer): (&Vm, &Seed, &Offer),
    (id, me, primary): (SetId, MemberId, MemberId),
    (beside, own, purpose): (Beside, Settings, Purpose),
) -> Result<Arc<Set>, String> {
    let vm_error = |e: crate::vm::Error| crate::host::with_causes(&e);
    let io_error = |e: std::io::Error| crate::host::with_causes(&e);
    let handover = Handover::from_bytes(&seed.state).map_err(|e| e.to_string())?;
    let gate = Gate::new();
    gate.stand_by(seed.position.saturating_sub(1));
    let mut held = vm.hold().map_err(vm_error)?;
    held.apply(&handover.state, Duration::ZERO).map_err(vm_error)?;
    held.hold_output(&gate).map_err(vm_error)?;
    let settings = Settings { heartbeat: offer.heartbeat, misses: offer.misses, ..own };
    let (wake, epoch) = (event().map_err(io_error)?, Instant::now());
    let members = (me, primary);
    let machine = Standby::begin(members, id, settings, seed.position, Duration::ZERO);
    let feed = thread::feed_of(seed.position, &wake).map_err(vm_error)?;
    // What the primary allows is in the image, and was judged there.
    let record = RecordOptions {
        check_every: super::member::CHECK_EVERY,
        allow_own_clock: true,
        ..RecordOptions::default()
    };
    let beginning = Beginning {
        me,
        id,
        settings,
        record,
        beside,
        gate: Arc::clone(&gate),
        last: seed.position,
        wake,
        epoch,
        part: Part::Standby(machine, Arc::clone(&feed)),
        purpose,
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

pub(super) fn say(channel: &mut Channel, word: Seeding) -> Result<(), LinkError> {
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
fn judge(offer: &[u8], to: For) -> Result<Offer, String> {
    let offer = Offer::from_bytes(offer)
        .map_err(|e| format!("{e}: run the same vmm-lite on both hosts"))?;
    match (to, offer.moves) {
        (For::Protection, true) => {
            return Err("it waits for a VM to protect; one that moves is \
            received by `vmm-lite receive`"
                .into());
        }
        (For::Move, false) => {
            return Err("it waits for a VM that moves; one to protect is taken by \
            `vmm-lite standby`"
                .into());
        }
        (For::Protection, false) | (For::Move, true) => {}
    }
    let here = Model::of_this_host();
    if offer.cpu != here {
        let refused = Refused { there: offer.cpu.to_string(), here: here.to_string() };
        return Err(refused.to_string());
    }
    Ok(offer)
}
