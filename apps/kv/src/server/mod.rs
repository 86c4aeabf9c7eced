//! Connections: bytes in, bytes out.

mod connection;
mod event_loop;

pub use event_loop::Server;
