//! Names to addresses.
//!
//! - [`message`]: questions to name servers, and their answers; pure
//! - `resolver`: asks them, and waits

pub mod message;
#[cfg(target_os = "hermit")]
mod resolver;

#[cfg(target_os = "hermit")]
pub use resolver::{ResolveError, resolve};
