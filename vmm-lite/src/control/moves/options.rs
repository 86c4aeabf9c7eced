//! Options of a move, as a `migrate` request has them.

use api::verb::{Migrate, MoveMode};
use migrate::source::Mode;
use std::time::Duration;
use vmm::migration::source::options::Options;

/// What is wrong with a request.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    /// A member with an invalid value.
    #[error("{0:?} of the request is invalid: it must not be 0")]
    Zero(&'static str),
    /// It is another kind of move.
    #[error("mode lockstep copies no memory while the guest stands")]
    Lockstep,
}

/// The options in a request.
///
/// # Errors
/// [`Wrong`].
pub fn of(request: &Migrate) -> Result<Options, Wrong> {
    let number = |name, value: Option<u64>| match value {
        Some(0) => Err(Wrong::Zero(name)),
        value => Ok(value),
    };
    let time = |name, ns| Ok(number(name, ns)?.map(Duration::from_nanos));
    Ok(Options {
        mode: match request.mode {
            MoveMode::Auto => Mode::Auto,
            MoveMode::PreCopy => Mode::PreCopy,
            MoveMode::Hybrid => Mode::Hybrid,
            MoveMode::StopAndCopy => Mode::StopAndCopy,
            MoveMode::Lockstep => return Err(Wrong::Lockstep),
        },
        max_blackout: time("max_blackout_ns", request.max_blackout_ns)?,
        bandwidth: number("bandwidth", request.bandwidth)?,
        timeout: time("timeout_ns", request.timeout_ns)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_without_options_has_the_usual_ones() {
        assert_eq!(of(&Migrate::default()), Ok(Options::default()));
        assert!(!Options::default().settings().strict);
        let all = Migrate {
            mode: MoveMode::StopAndCopy,
            max_blackout_ns: Some(250_000),
            bandwidth: Some(125_000_000),
            timeout_ns: Some(10_000_000_000),
            ..Migrate::default()
        };
        let options = Options {
            mode: Mode::StopAndCopy,
            max_blackout: Some(Duration::from_micros(250)),
            bandwidth: Some(125_000_000),
            timeout: Some(Duration::from_secs(10)),
        };
        assert_eq!(of(&all), Ok(options));
        assert!(options.settings().strict);
    }

    #[test]
    fn nothing_is_limited_to_0() {
        let wrong = Migrate { bandwidth: Some(0), ..Migrate::default() };
        assert_eq!(of(&wrong), Err(Wrong::Zero("bandwidth")));
        let wrong = Migrate { timeout_ns: Some(0), ..Migrate::default() };
        assert_eq!(of(&wrong), Err(Wrong::Zero("timeout_ns")));
    }
}
