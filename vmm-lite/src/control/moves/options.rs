//! Options of a move, as members of a `migrate` request.

use migrate::source::Mode;
use serde_json::{Map, Value, json};
use std::{fmt, time::Duration};
use vmm::migration::source::options::{MODES, Options};

/// A member of a request with an invalid value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong(&'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of the request is invalid", self.0)
    }
}

impl std::error::Error for Wrong {}

/// Writes them into a request.
pub fn to_request(options: Options, request: &mut Value) {
    let name = MODES.iter().find(|(_, mode)| *mode == options.mode).map(|(name, _)| name);
    request["mode"] = json!(name);
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    for (key, value) in [
        ("max_blackout_ns", options.max_blackout.map(ns)),
        ("bandwidth", options.bandwidth),
        ("timeout_ns", options.timeout.map(ns)),
    ] {
        if let Some(value) = value {
            request[key] = value.into();
        }
    }
}

/// Reads them from a request; members that are missing have their defaults.
///
/// # Errors
/// [`Wrong`].
pub fn from_request(request: &Map<String, Value>) -> Result<Options, Wrong> {
    let number = |key: &'static str| match request.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().filter(|n| *n > 0).map(Some).ok_or(Wrong(key)),
    };
    let mode = match request.get("mode") {
        None => Mode::default(),
        Some(name) => MODES
            .iter()
            .find(|(known, _)| name.as_str() == Some(known))
            .map(|(_, mode)| *mode)
            .ok_or(Wrong("mode"))?,
    };
    Ok(Options {
        mode,
        max_blackout: number("max_blackout_ns")?.map(Duration::from_nanos),
        bandwidth: number("bandwidth")?,
        timeout: number("timeout_ns")?.map(Duration::from_nanos),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(options: Options) -> Result<Options, Wrong> {
        let mut request = json!({});
        to_request(options, &mut request);
        from_request(request.as_object().unwrap())
    }

    #[test]
    fn options_survive_the_request() {
        assert_eq!(round_trip(Options::default()), Ok(Options::default()));
        let all = Options {
            mode: Mode::StopAndCopy,
            max_blackout: Some(Duration::from_micros(250)),
            bandwidth: Some(125_000_000),
            timeout: Some(Duration::from_secs(10)),
        };
        assert_eq!(round_trip(all), Ok(all));
        assert!(all.settings().strict && !Options::default().settings().strict);
    }

    #[test]
    fn nonsense_is_named() {
        let wrong = |request: Value| from_request(request.as_object().unwrap());
        assert_eq!(wrong(json!({ "mode": "fast" })), Err(Wrong("mode")));
        assert_eq!(wrong(json!({ "bandwidth": 0 })), Err(Wrong("bandwidth")));
        assert_eq!(wrong(json!({ "timeout_ns": "soon" })), Err(Wrong("timeout_ns")));
    }
}
