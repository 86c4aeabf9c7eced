//! Pre-copy: memory is copied in rounds while the guest runs, until what is left is copied while it
//! is stopped.
//!
//! One engine for everything that copies a running VM. A move and a snapshot differ in their
//! [`Policy`], and in what they do at the end: only a move predicts what its [switch](Switch)
//! costs.
//!
//! - `rounds`: which pages each round copies, and which are left
//! - `convergence`: whether another round is of any use, and when a move switches
//! - `prediction`: what the switch will cost, from this move's own measurements

mod convergence;
mod prediction;
mod rounds;

pub use convergence::{Few, Policy, Standing, Step, Switch, Verdict};
pub use prediction::{Budget, Measured};
pub use rounds::{ROUNDS_MAX, Rounds};
