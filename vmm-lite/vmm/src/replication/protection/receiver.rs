//! Waits for a VM that is to be protected by this process, for `vmm-lite standby`.

use super::{
    Arbiter, Beside, Member,
    channel::Channel,
    following::{For, SILENCE, follow, greet, receive, say},
    set::{Peer, Purpose},
    thread,
};
use crate::{
    host::{
        confine::Thread,
        poll::{Watch, wait_some},
        watchdog::{self, Doing},
    },
    migration::{
        Error,
        connection::{Connection, Transport},
        destination::{
            Offering,
            made::Made,
            stage::{Stage, Stages},
        },
        listener::{Service, Session},
    },
    vm::Vm,
};
use migrate::replication::{
    Settings,
    arbiter::{Answer, MemberId, Request, SetId},
    wire::Seeding,
};
use std::{
    net::TcpStream,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
};

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
        let received =
            welcomed.and_then(|()| receive(&mut channel, &offering, For::Protection, source));
        let (Made { vm, mut name, .. }, offer, seed) = match received {
            Ok(received) => received,
            Err(why) => {
                *self.free() = Some(Free { offering, beside });
                return Err(why);
            }
        };
        let members = (from.0, self.me, from.1);
        let how = (beside, self.settings, Purpose::Protection);
        let set = match follow((&vm, &seed, &offer), members, how) {
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
        if let Some((channel, from)) = greet(connection, session, SILENCE)?
            && let Err(why) = self.be_seeded(channel, from, &source)
        {
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
