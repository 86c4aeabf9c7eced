//! The test bed: hosts as network namespaces, real clients, measurements.
//!
//! - [`net`]: namespaces that no name holds, so that nothing survives the process that made them
//! - [`site`]: the usual place: two hosts and a client, a data network and a migration network
//! - [`exec`]: when a program was started, and descriptors that it is started with
//! - [`process`]: child processes that end with their guard, by pid
//! - [`vmm`]: `vmm-lite` as a user starts it, and its JSON
//! - [`images`]: unikernel images of the workspace's applications, built once
//! - [`probe`]: a redis client that times every request and checks that nothing is lost or doubled
//! - [`relay`]: stands between two hosts, sees every message of a move, and can break the link at
//!   any of them
//! - [`writers`]: many connections that write without waiting, and what the store must hold at the
//!   end
//! - [`runtime_dir`]: directories for control sockets, removed however the program ends
//! - [`redis`]: redis-benchmark and redis-cli
//! - [`stats`]: medians and tails
//! - [`skip`]: tests that cannot run here say so, and are counted
//! - [`privilege`]: what this user may do here, and the user namespace that helps where it may not

pub mod accept;
pub mod error;
pub mod exec;
pub mod files;
pub mod images;
pub mod message;
pub mod net;
pub mod privilege;
pub mod probe;
pub mod process;
pub mod redis;
pub mod relay;
pub mod runtime_dir;
pub mod site;
pub mod skip;
pub mod stats;
pub mod vmm;
pub mod writers;

pub use error::{Error, Result};
pub use skip::skipped;
