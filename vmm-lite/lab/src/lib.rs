//! The test bed: hosts as network namespaces, real clients, measurements.
//!
//! - [`net`]: namespaces without a name, so that nothing remains after the process that made them
//! - [`site`]: the usual test bed: two hosts and a client, a data network and a migration network
//! - [`exec`]: when a program was started, and descriptors that it inherits
//! - [`process`]: child processes that end with their guard
//! - [`vmm`]: `vmm-lite` as a user starts it, and its JSON
//! - [`etcd`]: Debian's etcd, one member or several, which tests stop and kill
//! - [`images`]: unikernel images of the workspace's applications, built once
//! - [`links`]: a host loses its links, and gets them back
//! - [`probe`]: a redis client that times every request and checks that no write is lost or doubled
//! - [`relay`]: forwards between two hosts, sees every message of a move, and can break the link at
//!   any of them
//! - [`writers`]: many connections that write without waiting, and what the store must hold at the
//!   end
//! - [`runtime_dir`]: directories for control sockets, removed however the program ends
//! - [`redis`]: redis-benchmark and redis-cli
//! - [`stats`]: medians and percentiles
//! - [`unused`]: addresses for servers that do not choose one
//! - [`skip`]: reports and counts tests that cannot run here
//! - [`privilege`]: what this user may do here, and a user namespace where that is not enough

pub mod accept;
pub mod error;
pub mod etcd;
pub mod exec;
pub mod files;
pub mod images;
pub mod links;
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
pub mod unused;
pub mod vmm;
pub mod writers;

pub use error::{Error, Result};
pub use skip::skipped;
