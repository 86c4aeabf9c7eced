//! The VM's side of the control socket: answers the requests of the [`api`].
//!
//! - [`server`]: accepts clients, and serves each on a thread of its own
//! - `admission`: limits the number of clients
//! - [`moves`], `copies`: the requests that move or copy the VM
//! - `protection`: the requests that protect the VM; [`arbiter`]: the process that asks its
//!   arbiter
//! - `console`: the request that makes a connection the console
//! - `stats`, `reports`: the figures and reports of the VMM library, as the API has them
//! - `error`: why a request is answered with an error
//! - `signals`: SIGINT, SIGTERM and SIGHUP of the process

mod admission;
pub mod arbiter;
mod console;
mod copies;
mod error;
pub mod moves;
mod protection;
mod reports;
pub mod server;
mod signals;
mod stats;

pub use error::Error;
pub use server::Server;
