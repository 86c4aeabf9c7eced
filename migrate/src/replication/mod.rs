//! Protection of a running VM: a replica set of one primary and its standbys.

pub mod arbiter;
