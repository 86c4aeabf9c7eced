//! Protection of a running VM by standbys on other hosts: drives the state machines of
//! [`migrate::replication`]. `docs/lockstep.md` has what a user gets.
//!
//! - `member`: this process's part, and what it does for users; `request`: what they ask, and get;
//!   `figures`: what they see
//! - `receiver`: a standby that waits for its VM; `seed`, `offer`, `following`: how it gets it
//! - `leaving`, `arriving`: a move by a swap of roles; `own`: its arbiter
//! - `set`: what a member's threads share; `thread`, `looking`: its own thread; `acting`: what the
//!   state machines say, carried out; `tally`: what happened
//! - `log`, `feed`: records on their way from one vCPU to the other
//! - `late`: packets that reach a standby's host
//! - `channel`: the connection between two members
//! - `beside`: what works for a member outside of its process: `keeper` has the packets that a dead
//!   primary leaves behind, `protector` has the VM protected again

mod acting;
mod arriving;
mod beside;
mod channel;
mod error;
mod feed;
mod figures;
mod following;
mod keeper;
mod late;
mod leaving;
mod log;
mod looking;
mod member;
mod offer;
mod own;
mod protector;
mod receiver;
mod request;
mod seed;
mod set;
mod tally;
mod thread;

pub use arriving::Arrivals;
pub use beside::{Arbiter, Beside};
pub use error::Error;
pub use figures::{Figures, Role, StandbyFigures};
pub use keeper::PacketKeeper;
pub use leaving::Left;
pub use member::Member;
pub use offer::Offer;
pub use protector::Protector;
pub use receiver::{Seeded, StandbyReceiver};
pub use request::{How, Progress, Protected, Swapped};
