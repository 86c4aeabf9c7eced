//! Decides by compare-and-swap which process may run a protected VM.
//!
//! A replica set has one record at its arbiter: who is active, in which term, and which standbys
//! are in sync. It changes by compare-and-swap only, so of all members that want to go on alone
//! exactly one may. `docs/arbiter.md` compares the arbiters and says what each guarantees.
//!
//! - [`Arb`]: which arbiter, as the user names it
//! - [`Swap`], [`Outcome`]: the only change, and its result
//! - [`ArbiterClient`], [`serve`]: the two processes that exchange requests and answers, since the
//!   process of a VM is confined
//! - [`Error`]: what can be concluded from an error
//!
//! ```
//! use arbiter::{Arb, MemberId, Outcome, Record, SetId, Swap, Term, Version, in_thread};
//! use std::time::Duration;
//!
//! let dir = tempfile::tempdir()?;
//! let arb: Arb = format!("file:{}", dir.path().display()).parse()?;
//! let second = Duration::from_secs(1);
//! let mut client = in_thread(arb)?;
//!
//! // The primary makes the set's record.
//! let (primary, standby) = (MemberId([1; 16]), MemberId([2; 16]));
//! let set = SetId([7; 16]);
//! let first = Record { set, term: Term(1), active: primary, in_sync: vec![standby] };
//! let made = client.swap(&Swap::new(Version::NONE, first.clone())?, second)?;
//! let Outcome::Won(version) = made else { panic!("there is a record already") };
//!
//! // Standby and primary lose each other, and both ask to go on alone. One of them wins.
//! let takeover = Swap::new(version, first.next(standby, []))?;
//! let alone = Swap::new(version, first.next(primary, []))?;
//! let outcome = loop {
//!     match client.swap(&takeover, second) {
//!         // It may have won: the same swap tells.
//!         Err(e) if e.is_ambiguous() => continue,
//!         outcome => break outcome?,
//!     }
//! };
//! assert!(matches!(outcome, Outcome::Won(_)));
//! let Outcome::Lost(Some(now)) = client.swap(&alone, second)? else { panic!("both won") };
//! assert_eq!(now.record.active, standby);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arb;
mod entry;
mod error;
mod etcd;
mod file;
mod machine;
mod process;
mod store;
mod swap;

use migrate::replication::arbiter as record;

pub use arb::{Arb, Etcd, ParseError, Tls};
pub use error::Error;
pub use machine::answer;
pub use migrate::replication::arbiter::{
    InvalidRecord, MemberId, Record, STANDBYS_MAX, SetId, Term, Version, Versioned,
};
pub use process::{ArbiterClient, Ask, Reply, RequestId, in_thread, pair, serve};
pub use swap::{Current, Nonce, Outcome, Swap};
