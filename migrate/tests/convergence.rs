//! The blackout of a guest that rewrites its memory as fast as it can, on hosts of any speed.
//!
//! What is left for the blackout depends on the CPU: on what the first write to a page costs the
//! guest, and on what a page costs both ends. The test drives the source's state machine with a
//! guest and two hosts that consist only of these figures, over the whole range of real hosts.

use migrate::{
    ReceiverId,
    offer::Offer,
    page_set::PageSet,
    precopy::{Few, Policy, ROUNDS_MAX},
    source::{Action, Event, Mode, Sent, Settings, Source, Stopped},
    wire::{Accepted, Message},
};
use proptest::prelude::*;
use std::time::Duration;

/// Pages that the guest rewrites, one after the other; it has no others.
const WRITTEN: usize = 4096;
const PAGES: usize = 6000;

/// A guest and its two hosts, in ns.
#[derive(Clone, Copy, Debug)]
struct Hosts {
    /// The guest's time for the first write to a page since the log was taken.
    write: u64,
    /// A page's transfer time, both ends included.
    page: u64,
    /// The round trip.
    trip: u64,
    /// The time for the last pages, in percent of what they took in the rounds.
    last: u64,
}

/// The result of a move.
#[derive(Clone, Copy, Debug)]
struct Moved {
    blackout: u64,
    last: usize,
    follow: usize,
    /// Rounds, including the one that names the post-copy pages, as the destination counts them.
    ended: u32,
    urgent: u64,
}

/// Time until the vCPU is stopped, and how much of it the guest still runs.
const QUIESCE: (u64, u64) = (80_000, 50_000);
/// The destination's time to apply a state, to run it, and to prewarm.
const APPLY: u64 = 30_000;
const RUN: u64 = 40_000;
const WARM: u64 = 6_000_000;

struct Guest {
    next: usize,
    dirty: PageSet,
}

impl Guest {
    fn run(&mut self, time: u64, hosts: Hosts) {
        for _ in 0..(time / hosts.write).min(WRITTEN as u64) {
            self.dirty.insert(1000 + self.next);
            self.next = (self.next + 1) % WRITTEN;
        }
    }
}

fn moved(hosts: Hosts, settings: Settings) -> Moved {
    let offer = Offer {
        receiver: ReceiverId::default(),
        name: String::new(),
        memory_size: (PAGES * migrate::PAGE) as u64,
        interface_version: 1,
        network: false,
        identity: Vec::new(),
    };
    let mut now = 0;
    let ns = Duration::from_nanos;
    let mut guest = Guest { next: 0, dirty: PageSet::none(PAGES) };
    let (mut source, _) = Source::begin([1; 16], offer, settings, ns(now));
    let welcome = Event::Message(Message::Welcome([1; 16], [2; 16]));
    now += hosts.trip;
    let mut actions = source.handle(welcome, ns(now));
    let (mut warms, mut rounds_since_hint, mut blackout) = (0, None, 0);
    let (mut last, mut following, mut ended) = (0, 0, 0);
    loop {
        let mut events = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Send(Message::Offer(_)) => {
                    let accepted = Accepted { follow: true, apply_ns: APPLY };
                    events.push((Event::Message(Message::Accept(accepted)), hosts.trip));
                }
                Action::SwitchHint => {
                    warms = WARM;
                    rounds_since_hint = Some(now);
                }
                Action::SendPages { round, pages } => {
                    ended += 1;
                    let full = pages.len() as u64;
                    let bytes = full * migrate::PAGE as u64 + 20;
                    events.push((Event::Sent(Sent { bytes, full, ..Sent::default() }), 0));
                    let took = full * hosts.page + hosts.trip + std::mem::take(&mut warms);
                    events.push((Event::Message(Message::RoundDone(round)), took));
                }
                Action::Announce { round, pages } => {
                    ended += 1;
                    following = pages.len();
                    let took = hosts.trip + std::mem::take(&mut warms);
                    events.push((Event::Message(Message::RoundDone(round)), took));
                }
                Action::PeekDirty => {
                    let (dirty, page_hints) = (guest.dirty.clone(), PageSet::none(PAGES));
                    events.push((Event::Peeked { dirty, page_hints }, 10_000));
                }
                Action::TakeDirty => {
                    let dirty = std::mem::replace(&mut guest.dirty, PageSet::none(PAGES));
                    events.push((Event::Dirty { dirty, page_hints: PageSet::none(PAGES) }, 10_000));
                }
                Action::Stop { .. } => {
                    guest.run(QUIESCE.1, hosts);
                    events.push((
                        Event::Stopped(Stopped {
                            requested: ns(now),
                            stopped: ns(now + QUIESCE.0),
                            quiescent: true,
                            dirty: guest.dirty.clone(),
                            page_hints: PageSet::none(PAGES),
                            needed: Vec::new(),
                        }),
                        0,
                    ));
                }
                Action::SendLast { pages, follow, hold } => {
                    last = pages.len();
                    following += follow.len();
                    let ways = hosts.trip * if hold { 1 } else { 3 } / 2;
                    let sending = last as u64 * hosts.page * hosts.last / 100;
                    blackout = QUIESCE.0 + sending + ways + APPLY + RUN;
                }
                _ => {}
            }
        }
        if blackout > 0 {
            let urgent = now - rounds_since_hint.unwrap_or(now);
            return Moved { blackout, last, follow: following, ended, urgent };
        }
        assert!(!events.is_empty(), "{} in the middle of a move", source.doing());
        for (event, after) in events {
            guest.run(after, hosts);
            now += after;
            actions.extend(source.handle(event, ns(now)));
        }
    }
}

/// All hosts: a first write of 1 to 8 us, a page's transfer of 0.8 to 6 us, round trips of 30 to
/// 200 us.
fn all_hosts(last: u64) -> impl Iterator<Item = Hosts> {
    let writes = [1000, 1500, 2000, 2500, 3000, 3500, 4500, 6000, 8000];
    let pages = [800, 1200, 1600, 2000, 2500, 3000, 4000, 6000];
    writes.into_iter().flat_map(move |write| {
        pages.into_iter().flat_map(move |page| {
            [30_000, 60_000, 100_000, 200_000].into_iter().map(move |trip| Hosts {
                write,
                page,
                trip,
                last,
            })
        })
    })
}

/// Also where the last pages take a quarter longer than the rounds suggest.
#[test]
fn no_blackout_is_longer_than_a_millisecond_whatever_the_hosts_speed() {
    for hosts in all_hosts(125) {
        let moved = moved(hosts, Settings::default());
        assert!(moved.blackout <= 1_000_000, "{hosts:?}: {moved:?}");
    }
}

/// Where pages are sent faster than the guest writes, rounds are repeated until next to nothing is
/// left.
#[test]
fn what_is_left_shrinks_as_long_as_it_can() {
    for hosts in all_hosts(100).filter(|hosts| hosts.page * 10 <= hosts.write * 7) {
        let moved = moved(hosts, Settings::default());
        // Where sending converges on what the guest writes meanwhile, plus what it writes while it
        // is being stopped.
        let settles = hosts.trip / (hosts.write - hosts.page) + QUIESCE.1 / hosts.write;
        assert_eq!(moved.follow, 0, "{hosts:?}: {moved:?}");
        assert!(moved.last as u64 <= 2 * settles + 40, "{hosts:?}: {moved:?}, {settles}");
    }
}

/// Both ends have real-time priority in urgent rounds, so these must end.
#[test]
fn urgent_rounds_come_to_an_end() {
    for hosts in all_hosts(100) {
        let moved = moved(hosts, Settings::default());
        assert!(moved.urgent < 100_000_000 && moved.ended <= 29, "{hosts:?}: {moved:?}");
    }
}

proptest! {
    /// A destination cancels a move with more rounds than that.
    #[test]
    fn a_source_makes_no_more_rounds_than_a_destination_takes(
        write in 1..20_000_u64,
        page in 1..20_000_u64,
        trip in 1..500_000_u64,
        urgent_rounds in 0..1000_u32,
        rounds_max in 0..1000_u32,
        mode in prop::sample::select(vec![Mode::Auto, Mode::PreCopy, Mode::Hybrid]),
        last_round in 0..1000_u64,
    ) {
        let policy = Policy {
            few: Few::Time(Duration::from_nanos(last_round)),
            rounds_max,
            ..Policy::default()
        };
        let settings = Settings { urgent_rounds, policy, mode, ..Settings::default() };
        let moved = moved(Hosts { write, page, trip, last: 100 }, settings);
        prop_assert!(moved.ended <= ROUNDS_MAX, "{moved:?}");
    }
}
