//! Seeding: a standby gets a copy of the running VM, and follows from there.

use super::{
    Error,
    channel::{Channel, explained},
    offer::Offer,
    request::Progress,
    set::{self, Set},
};
use crate::{
    capture::{Page, Sink, copy_exactly},
    memory::is_zero,
    migration::{
        self,
        address::Address,
        connection::{Connection, LinkError, Transport},
        handover::Handover,
    },
    vm::{CallOff, Observer, Operation, Position},
};
use migrate::{
    Peer,
    replication::{
        arbiter::MemberId,
        primary::Event,
        wire::{Message, PAGES_MAX, Seed, Seeding},
    },
};
use std::{io, time::Duration};

/// How long a standby may be silent while it makes a VM, or applies its state.
const SILENCE: Duration = Duration::from_secs(10);
/// How long it may take nothing of what is sent.
const STALLED: Duration = Duration::from_secs(5);

/// A standby that was seeded.
pub(super) struct Seeded {
    pub member: MemberId,
    /// The pause of the guest for the copy's last pages.
    pub pause: Duration,
    pub pages: u64,
    /// Bytes sent on the connection.
    pub bytes: u64,
    /// The standby's key, if it has proved one.
    pub peer: Peer,
}

/// Seeds the standby at `to`, which is told of the set's log from then on.
pub(super) fn seed(
    set: &Set,
    to: &Address,
    transport: &Transport,
    observer: &mut dyn Observer<Progress>,
) -> Result<Seeded, Error> {
    let vm = &set.vm;
    let copying = vm.begin(Operation::Protect)?;
    let call_off = CallOff::of(vm, observer.fd());
    tell(observer, Progress::Phase("connecting"))?;
    let connection =
        Connection::open(to, transport, None, STALLED, &call_off).map_err(|e| match e {
            migration::Error::Link(LinkError::Unreachable { to, source }) => {
                Error::Unreachable { to, source }
            }
            e => e.into(),
        })?;
    let peer = connection.peer();
    let mut channel = Channel::over(connection, false).map_err(LinkError::from)?;
    let failed = |e| Error::from(explained(e, &to.to_string()));
    let hello = Seeding::Hello { set: set.id, from: set.me };
    let member = match ask(&mut channel, hello).map_err(failed)? {
        Seeding::Welcome(member) => member,
        Seeding::Refuse(why) => return Err(Error::Refused(why)),
        _ => return Err(nonsense()),
    };
    fail_point!("protection.seeding");
    let offer = Seeding::Offer(Offer::of(vm, &set.settings, set.purpose.moves()).to_bytes());
    match ask(&mut channel, offer).map_err(failed)? {
        Seeding::Accept => {}
        Seeding::Refuse(why) => return Err(Error::Refused(why)),
        _ => return Err(nonsense()),
    }
    tell(observer, Progress::Phase("copying the VM"))?;
    let complete = vm.ram().complete().ok_or(crate::snapshot::Error::NotReady)?;
    let mut sink = PageSink { channel: &mut channel, pages: 0, sent: Vec::new() };
    let mut at = None;
    let mut alive = |pages: usize| {
        observer.progress(Progress::Pages(pages as u64)).is_ok()
            && matches!(call_off.check(), Ok(None))
    };
    let copied = copy_exactly(vm, complete, &mut sink, &mut alive, &mut |paused| {
        at = paused.position()?;
        // What follows is kept for it.
        let mut core = set.lock();
        core.send_recent();
        core.recent.keep(true);
        Ok(())
    });
    let pages = sink.pages;
    let seeded = copied.map_err(|e| Error::Copy(e.into())).and_then(|copied| {
        let Position { record, samples } =
            at.ok_or_else(|| Error::NotNow("the VM is not recorded".into()))?;
        let state = Handover { state: copied.state, paused: false, vouched_for: false }.to_bytes();
        let seed = Seed { position: record, samples: samples as u32, state };
        fail_point!("protection.copied");
        match ask(&mut channel, Seeding::Seed(seed)).map_err(failed)? {
            Seeding::Ready => {}
            Seeding::Refuse(why) => return Err(Error::Refused(why)),
            _ => return Err(nonsense()),
        }
        let pause = copied.phases.map_or(Duration::ZERO, |p| Duration::from_nanos(p.pause_ns()));
        Ok((record, pause))
    });
    let mut core = set.lock();
    let joined = match seeded {
        Ok(_) if core.recent.overflowed => {
            Err(Error::NotNow("the VM was given more meanwhile than is kept for a standby".into()))
        }
        Ok((base, pause)) => {
            let bytes = channel.total();
            core.peers.insert(member, set::Peer { channel, address: to.to_string() });
            core.send_recent();
            core.primary(Event::Seeded { member, base });
            Ok(Seeded { member, pause, pages, bytes, peer })
        }
        Err(e) => Err(e),
    };
    core.recent.keep(false);
    core.wake();
    drop((core, copying));
    joined
}

fn tell(observer: &mut dyn Observer<Progress>, progress: Progress) -> Result<(), Error> {
    let gone = |_| Error::Copy(crate::snapshot::Error::from(crate::capture::Error::Cancelled));
    observer.progress(progress).map_err(gone)
}

fn nonsense() -> Error {
    Error::Refused("it answered something that makes no sense: is it the same vmm-lite?".into())
}

/// Sends a message, and waits for the answer.
fn ask(channel: &mut Channel, message: Seeding) -> Result<Seeding, LinkError> {
    channel.queue(&Message::Seeding(message))?;
    channel.send_all(STALLED)?;
    match channel.receive(SILENCE)? {
        Message::Seeding(answer) => Ok(answer),
        _ => Err(LinkError::Io(io::Error::other("the standby answered something else"))),
    }
}

/// Sends the pages of a copy.
struct PageSink<'c> {
    channel: &'c mut Channel,
    pages: u64,
    /// Pages that were sent with a content: when they become zero, that has to be sent too.
    sent: Vec<bool>,
}

impl Sink for PageSink<'_> {
    fn pages(&mut self, pages: &[Page]) -> io::Result<()> {
        for pages in pages.chunks(PAGES_MAX) {
            let (mut numbers, mut content) = (Vec::new(), Vec::new());
            for (page, bytes) in pages {
                if self.sent.len() <= *page {
                    self.sent.resize(page + 1, false);
                }
                if self.sent[*page] || !is_zero(bytes) {
                    self.sent[*page] = true;
                    numbers.push(*page as u32);
                    content.extend_from_slice(bytes);
                }
            }
            if numbers.is_empty() {
                continue;
            }
            self.pages += numbers.len() as u64;
            let message = Message::Seeding(Seeding::Pages(numbers, content));
            let sent = self.channel.queue(&message);
            sent.and_then(|()| self.channel.send_all(STALLED)).map_err(io::Error::other)?;
        }
        Ok(())
    }
}
