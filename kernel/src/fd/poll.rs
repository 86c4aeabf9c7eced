//! Waiting for many descriptors at once.

use super::{Errno, Object, console, table::with_table};
use crate::{
    net::AwaitsNetwork,
    sched::{
        Wake,
        readiness::{Poller, Ready, Waits},
    },
    time,
};
use alloc::{rc::Rc, vec::Vec};

/// A descriptor to wait for, as the caller's ABI names it.
pub trait Polled {
    /// Its number.
    fn fd(&self) -> i32;
    /// Notes what it is ready for, or that there is no such descriptor. Returns whether that is
    /// something that the caller waits for.
    fn found(&mut self, ready: Result<Ready, Errno>) -> bool;
}

/// Waits until one of `entries` is ready, or for `timeout_ns`. Returns how many are.
pub fn poll(entries: &mut [impl Polled], timeout_ns: Option<u64>) -> usize {
    let deadline = timeout_ns.map(|ns| time::now_ns().saturating_add(ns));
    let ready = check(entries);
    if ready > 0 || timeout_ns == Some(0) {
        return ready;
    }
    let poller = Rc::new(Poller::default());
    let (waits, network) = waits_of(entries);
    waits.iter().for_each(|waits| waits.add(&poller));
    let _awaits = network.then(AwaitsNetwork::begin);
    let ready = loop {
        let wake = poller.wait(deadline);
        let ready = check(entries);
        if ready > 0 || wake == Wake::TimedOut {
            break ready;
        }
    };
    waits.iter().for_each(|waits| waits.remove(&poller));
    ready
}

/// Tells each entry what its descriptor is ready for; returns how many wait for that.
fn check(entries: &mut [impl Polled]) -> usize {
    with_table(|table| {
        let mut count = 0;
        for entry in entries {
            let ready = table.get(entry.fd()).map(|description| description.ready());
            count += usize::from(entry.found(ready.map_err(Errno::from)));
        }
        count
    })
}

/// Where to wait for each of `entries`, and whether the network is among them.
fn waits_of(entries: &[impl Polled]) -> (Vec<Rc<Waits>>, bool) {
    let (mut console, mut network) = (false, false);
    let mut waits: Vec<Rc<Waits>> = with_table(|table| {
        let waits = entries.iter().filter_map(|entry| {
            let description = table.get(entry.fd()).ok()?;
            console |= matches!(description.object, Object::Stdin);
            network |= matches!(description.object, Object::Socket(_));
            description.waits().cloned()
        });
        waits.collect()
    });
    if console {
        waits.push(console::waits());
    }
    (waits, network)
}
