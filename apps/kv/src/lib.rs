//! A key-value server for Redis clients: RESP2 and RESP3, pipelining, and the common commands with
//! the semantics and the error texts of Redis 7.
//!
//! One thread, one `mio` poll. Requests are parsed in the buffer they were read into, and replies
//! are written into one buffer that is sent once per readiness. Memory has a limit, at which the
//! server refuses writes and continues.
//!
//! [`protocol`] does not depend on the store, nor [`store`] on the protocol; [`commands`] connects
//! them, [`server`] does the I/O.

pub mod commands;
pub mod config;
pub mod memory;
pub mod protocol;
pub mod server;
pub mod store;
pub mod vmm;
