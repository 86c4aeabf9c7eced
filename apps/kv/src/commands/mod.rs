//! The commands: one file per group, a table of all, and the dispatch from a request to its reply.

mod connection;
mod context;
mod dispatch;
mod error;
mod expiry;
mod glob;
mod hashes;
mod info;
mod introspection;
mod keys;
mod lists;
mod scan;
mod server;
mod sets;
mod sorted_ranges;
mod sorted_sets;
mod strings;
mod table;
mod transactions;

#[cfg(test)]
mod tests;

pub use context::{Context, Session, State, Stats};
pub use dispatch::{execute, refuse_too_large};
pub use error::{Error, Outcome};
pub use transactions::unwatch;
