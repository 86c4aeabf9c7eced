//! Inputs of a guest: recorded into a log, or taken from one (rule R8).
//!
//! The vCPU's thread keeps the [`Tape`]. What other threads want of a recorded guest, and what it
//! is told after a pause, waits here for the next input point: an exit that the guest takes by
//! itself, which comes soon, as it is made to exit at the next sample that it takes.
//!
//! - `record`: exits and inputs into a log
//! - `replay`: the guest runs through a log
//! - `news`: what a guest is told before it runs
//! - `staged`: requests that wait for an input point
//! - `check`: digests of the guest's state
//! - `routine`: a guest that was stopped while it took a sample
//! - `moment`: moments of a replay, exact to the instruction
//! - `orders`, `debug`, `debugged`: a replay for a debugger, which stops where its code is patched
//!   (`patches`), also behind one instruction (`successors`)
//! - `switch`: from one kind of tape to another

mod check;
mod debug;
mod debugged;
mod moment;
mod news;
mod orders;
mod patches;
mod record;
mod replay;
mod routine;
mod staged;
mod successors;
mod switch;

use debug::Debug;
pub use debugged::Debugged;
pub use moment::{Leg, Moment};
use news::tell;
pub use orders::{DebugLink, DebugStop, Orders};
pub(super) use record::{Failure, Recorder};
pub use record::{Log, RecordOptions, Urgency};
pub(super) use replay::Replayer;
pub use replay::{Next, Outcome, Replayed, Source};
pub(crate) use routine::leave_routine;
pub(super) use staged::Staged;
pub use switch::Position;

/// What happens to a guest's inputs.
#[derive(Debug, Default)]
pub(super) enum Tape {
    /// They come from the world, and are not kept.
    #[default]
    Off,
    /// They come from the world and go into a log.
    Record(Box<Recorder>),
    /// They come from a log.
    Replay(Box<Replayer>),
}
