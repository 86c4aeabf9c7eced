//! What the tests of both kinds of arbiter share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use arbiter::{ArbiterClient, MemberId, Outcome, Record, SetId, Swap, Term, Version};
use std::time::Duration;

/// Long enough for any answer of an arbiter that works.
pub const LONG: Duration = Duration::from_secs(20);

/// 16 random bytes.
pub fn random() -> [u8; 16] {
    std::array::from_fn(|_| fastrand::u8(..))
}

/// The first record of a set that nobody else uses.
pub fn first() -> Record {
    Record { set: SetId(random()), term: Term(1), active: MemberId(random()), in_sync: vec![] }
}

/// A record of `set` in which `member` is active.
pub fn record(set: SetId, term: u64, member: MemberId) -> Record {
    Record { set, term: Term(term), active: member, in_sync: vec![] }
}

/// A swap that must be won, and its version.
pub fn win(client: &mut ArbiterClient, expected: Version, new: Record) -> Version {
    match client.swap(&Swap::new(expected, new).unwrap(), LONG).unwrap() {
        Outcome::Won(version) => version,
        lost @ Outcome::Lost(_) => panic!("{lost:?}"),
    }
}

/// The stored version, which must be there.
pub fn version(client: &mut ArbiterClient, set: SetId) -> Version {
    client.read(set, LONG).unwrap().expect("there is a record").version
}

/// Starts a cluster; `None`, and a report, where there is no etcd.
pub fn etcd(members: usize) -> Option<vmm_lite_lab::etcd::Cluster> {
    or_skip(vmm_lite_lab::etcd::Cluster::start(members))
}

/// Reports a test that cannot run here.
pub fn or_skip<T>(started: vmm_lite_lab::Result<T>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(e @ vmm_lite_lab::Error::Missing { .. }) => {
            let test = std::thread::current().name().unwrap_or("etcd").to_owned();
            vmm_lite_lab::skipped(&test, e);
            None
        }
        Err(e) => panic!("{e}"),
    }
}
