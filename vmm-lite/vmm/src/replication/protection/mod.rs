//! Protection of a running VM by standbys on other hosts: drives the state machines of
//! [`migrate::replication`]. `docs/lockstep.md` has what a user gets.
//!
//! - `member`: this process's part, with what users ask of it; `figures`: what they see
//! - `receiver`: a standby that waits for its VM; `seed`, `offer`: how it gets it
//! - `set`: what a member's threads share; `thread`, `looking`: its own thread; `acting`: what the
//!   state machines say, carried out; `tally`: what happened
//! - `log`, `feed`: records on their way from one vCPU to the other
//! - `late`: packets that reach a standby's host
//! - `channel`: the connection between two members
//! - `beside`: what works for a member outside of its process: `keeper` has the packets that a dead
//!   primary leaves behind, `protector` has the VM protected again

mod acting;
mod beside;
mod channel;
mod error;
mod feed;
mod figures;
mod keeper;
mod late;
mod log;
mod looking;
mod member;
mod offer;
mod protector;
mod receiver;
mod seed;
mod set;
mod tally;
mod thread;

pub use beside::{Arbiter, Beside};
pub use error::Error;
pub use figures::{Figures, Role, StandbyFigures};
pub use keeper::PacketKeeper;
pub use member::{How, Member, Progress, Protected, Swapped};
pub use protector::Protector;
pub use receiver::{Seeded, StandbyReceiver};
