//! The keys in etcd.

use crate::record::{MemberId, SetId};

/// All keys begin with it.
pub const PREFIX: &str = "vmm-lite/";

/// The record of a set. It has no lease: a record that vanished by itself would let two members go
/// on, each sure to be the first.
pub fn record(set: SetId) -> String {
    format!("{PREFIX}sets/{set}")
}

/// Prefix of the set's members that run.
pub fn members(set: SetId) -> String {
    format!("{PREFIX}present/{set}/")
}

/// A member that runs; bound to a lease, and used for display only.
pub fn member(set: SetId, member: MemberId) -> String {
    format!("{}{member}", members(set))
}
