//! Receives VMs that move: by [`migrate`], and by a swap of roles (lockstep).

use super::{
    Beside,
    channel::Channel,
    following::{For, SILENCE, follow, greet, receive, say},
    own::Own,
    set::{Part, Peer, Purpose, Set},
    thread,
};
use crate::{
    host::{
        confine::Thread,
        watchdog::{self, Doing},
        with_causes,
    },
    migration::{
        Error,
        connection::{Connection, LinkError, Transport},
        destination::{Offering, Receiver, made::Made, stage::Stages},
        listener::{Service, Session},
    },
    vm::Vm,
};
use migrate::replication::{
    Settings,
    arbiter::{MemberId, SetId},
    wire::{MAGIC, Message, Seeding},
};
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a source may be silent at the beginning.
const FIRST: Duration = Duration::from_secs(5);
/// How long the source may let the copy follow before it gives the VM.
const FOLLOWING: Duration = Duration::from_secs(600);
/// How long after the move packets are taken that the source forwards.
const FORWARDED: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Arrivals(Arc<Receiver>);

impl Arrivals {
    /// Of this receiver.
    #[must_use]
    pub const fn new(receiver: Arc<Receiver>) -> Self {
        Self(receiver)
    }

    /// Follows until the VM is given. Returns it, with its name and the connection.
    fn arrive(
        &self,
        mut channel: Channel,
        (id, from): (SetId, MemberId),
        offering: &Offering,
        source: &str,
    ) -> Result<(Made, Option<Channel>), String> {
        let link = |e: LinkError| with_causes(&e);
        let me = MemberId(crate::host::random::bytes().map_err(|e| with_causes(&e))?);
        say(&mut channel, Seeding::Welcome(me)).map_err(link)?;
        let (made, offer, seed) = receive(&mut channel, offering, For::Move, source)?;
        let output = offering.output.as_ref().map(OwnedFd::try_clone);
        let arbiter = Box::new(Own::of_destination());
        let beside = Beside { arbiter, keeper: None, protector: None };
        let how = (beside, Settings::default(), Purpose::Arriving);
        let set = match follow((&made.vm, &seed, &offer), (id, me, from), how) {
            Ok(set) => set,
            Err(why) => {
                say(&mut channel, Seeding::Refuse(why.clone())).map_err(link)?;
                return Err(why);
            }
        };
        if let Some(Ok(output)) = output {
            set.lock().output = Some(output);
        }
        say(&mut channel, Seeding::Ready).map_err(link)?;
        set.lock().peers.insert(from, Peer { channel, address: source.to_owned() });
        thread::start(&set).map_err(|e| with_causes(&e))?;
        Ok((made, given(&set, from)?))
    }
}

/// Waits until the VM is given, and runs here. Returns the connection to the source, unless that is
/// lost.
fn given(set: &Set, from: MemberId) -> Result<Option<Channel>, String> {
    let given = set.wait_for(Instant::now() + FOLLOWING, |core| match core.part {
        _ if core.tally.takeovers > 0 => Some(Ok(core.peers.remove(&from))),
        Part::Over { .. } => Some(Err(core.tally.failed.clone().unwrap_or_default())),
        Part::Primary(_) | Part::Standby(..) => None,
    });
    match given {
        Some(Ok(peer)) => Ok(peer.map(|peer| peer.channel)),
        Some(Err(why)) => Err(why),
        None => {
            let why = "its source did not give it in time".to_owned();
            set.over(false, &why);
            Err(why)
        }
    }
}

/// Gives the guest what the source forwards, until that closes the connection.
fn take_forwarded(mut channel: Channel, vm: &Vm) -> Result<(), LinkError> {
    channel.send_all(SILENCE)?;
    let end = Instant::now() + FORWARDED;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if let Message::Forwarded(packet) = channel.receive(left)? {
            // A full queue loses packets, as a wire does.
            vm.deliver_forwarded(packet);
        }
    }
}

impl Service for Arrivals {
    fn stages(&self) -> &Stages {
        self.0.stages()
    }

    fn taken(&self) -> bool {
        self.0.taken()
    }

    fn serve(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        transport: &Transport,
        session: &mut Session,
    ) -> Result<(), Error> {
        let mut connection = Connection::accept(stream, transport, FIRST)?;
        if !connection.begins_with(MAGIC)? {
            return self.0.converse(connection, session);
        }
        let source = connection.other_end();
        let Some((mut channel, from)) = greet(connection, session, FIRST)? else { return Ok(()) };
        let Some(offering) = self.0.lend() else {
            say(&mut channel, Seeding::Refuse("it has a VM, or is receiving one".into()))?;
            return Ok(());
        };
        let _attends = watchdog::attend(Thread::Receive.name());
        let _owes = watchdog::owe(Doing::Receive);
        let arrived = self.arrive(channel, from, &offering, &source);
        drop(offering);
        match arrived {
            Ok((Made { vm, mut name, .. }, channel)) => {
                name.open();
                self.0.became(vm.clone());
                if let Some(channel) = channel {
                    // It ends with an error: the end of the connection, or of the time.
                    let _ = take_forwarded(channel, &vm);
                }
                self.0.ends_receiving();
            }
            Err(why) => {
                self.0.take_back();
                eprintln!("vmm-lite: a VM did not arrive: {why}; waiting for the next");
            }
        }
        Ok(())
    }
}
