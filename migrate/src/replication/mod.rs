//! Protection of a running VM: a replica set of one primary and its standbys.
//!
//! The primary runs the VM and sends the records of its input log; a standby executes them. Output
//! leaves the primary when every standby in sync has the records that it depends on (rule R3).
//! Before a member goes on alone it wins one compare-and-swap at the arbiter. `REPLICATION.md`
//! beside this crate has the states, the rules and the faults.
//!
//! [`Primary`] and [`Standby`] are two pure state machines: events and the time go in, actions come
//! out, to be carried out in their order. Their driver owns the log's bytes, the connections and
//! the guest. It calls `handle` with [`primary::Event::Tick`] when `deadline()` is over. Time is a
//! [`Duration`] since any moment, and does not go back.
//!
//! ```
//! use std::time::Duration;
//! use migrate::replication::{
//!     Primary, Settings,
//!     arbiter::{Answer, MemberId, SetId, Version},
//!     primary::{Action, Event},
//!     wire::Message,
//! };
//!
//! let (me, standby, now) = (MemberId([1; 16]), MemberId([2; 16]), Duration::ZERO);
//! // A VM is protected: its record is made at the arbiter. The log is at position 0, the base.
//! let (mut primary, actions) = Primary::begin(me, SetId([3; 16]), Settings::default(), 0, now);
//! assert!(matches!(actions[..], [Action::Ask(_)]));
//! primary.handle(Event::Arbiter(Answer::Swapped(Version(1))), now);
//!
//! // A standby has been seeded. The primary asks the arbiter to put it into the set.
//! let actions = primary.handle(Event::Seeded { member: standby, base: 0 }, now);
//! assert!(matches!(actions.last(), Some(Action::Ask(_))));
//! primary.handle(Event::Arbiter(Answer::Swapped(Version(2))), now);
//!
//! // From here on output waits for the standby.
//! let actions = primary.handle(Event::Appended { last: 1, bytes: 100 }, now);
//! let send = Action::SendRecords { to: standby, first: 1, last: 1, released: 0 };
//! assert_eq!(actions, [send]);
//! let ack = Message::Ack { received: 1, executed: 0, stamp_ns: 0 };
//! let actions = primary.handle(Event::Message { from: standby, message: ack }, now);
//! assert_eq!(actions, [Action::Release(1)]);
//! ```
//!
//! - [`arbiter`]: the record of a set, and what is asked of the arbiter
//! - [`wire`]: the messages between primary and standby
//! - [`primary`], [`standby`]: the two state machines

pub mod arbiter;
mod asking;
pub mod primary;
pub mod standby;
pub mod wire;

pub use primary::Primary;
pub use standby::Standby;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A record's place in the input log. The first has position 1; position 0 is the snapshot that the
/// log begins with.
pub type Position = u64;

/// When output may leave the host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Commit {
    /// When every standby in sync has received the records that it depends on.
    #[default]
    Received,
    /// When every standby in sync has executed them, and found no divergence.
    Executed,
}

/// Settings of a member. Those of a set's members should agree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings {
    /// When output may leave the host.
    pub commit: Commit,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// Number of heartbeats missed after which a silent peer is suspected.
    pub misses: u32,
    /// Longest time that a standby may be behind in its execution before output is slowed down.
    pub max_lag: Duration,
    /// Most bytes of records that a standby may be behind in its execution before that.
    pub max_lag_bytes: u64,
    /// How long output is slowed down before a standby that is still too far behind is dropped.
    pub lag_grace: Duration,
    /// Time from an answer that the arbiter is unreachable to the next request.
    pub retry: Duration,
    /// **Dangerous.** Whether this member goes on alone when neither its peer nor the arbiter is
    /// reachable. If the link to both is cut and this is set, both members may run the VM and
    /// answer clients with different histories, until the arbiter is back and one of them stops:
    /// what that one has acknowledged since is lost. Set it for one member at most, and only
    /// where something else sees to it that the other one cannot run then.
    pub alone_without_arbiter: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            commit: Commit::Received,
            heartbeat: Duration::from_millis(1),
            misses: 5,
            max_lag: Duration::from_millis(50),
            max_lag_bytes: 64 << 20,
            lag_grace: Duration::from_millis(200),
            retry: Duration::from_millis(20),
            alone_without_arbiter: false,
        }
    }
}

impl Settings {
    /// How long a peer may be silent.
    fn silence(&self) -> Duration {
        self.heartbeat.saturating_mul(self.misses)
    }
}
