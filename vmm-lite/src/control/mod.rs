//! The VM's side of the control socket: answers the requests of the [`api`].
//!
//! - [`server`]: accepts clients, and serves each on a thread of its own
//! - `admission`: limits the number of clients
//! - [`moves`], `copies`: the requests that move or copy the VM
//! - `signals`: SIGINT, SIGTERM and SIGHUP of the process

mod admission;
mod copies;
pub mod moves;
pub mod server;
mod signals;

pub use server::Server;
