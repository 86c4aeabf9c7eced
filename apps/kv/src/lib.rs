//! A key-value server that Redis clients use: RESP2 and RESP3, pipelining, and the commands of
//! everyday use with the semantics and the error texts of Redis 7.
//!
//! One thread, one `mio` poll. A request is parsed where it was read and its reply written into one
//! buffer that goes out once per readiness. Memory has a limit; at the limit writes are refused,
//! and nothing dies.
//!
//! [`protocol`] knows no store, [`store`] no protocol; [`commands`] joins them, [`server`] brings
//! bytes.

pub mod commands;
pub mod config;
pub mod memory;
pub mod protocol;
pub mod server;
pub mod store;
pub mod vmm;
