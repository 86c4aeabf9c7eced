//! What `vmm-lite migrate` asks for, as members of its request.

use migrate::source::{Mode, Settings};
use serde_json::{Map, Value, json};
use std::{fmt, time::Duration};
use vmm_lite_interface::layout::{IMAGE_BASE, PAGE_SIZE};

/// How a move is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// How memory goes over.
    pub mode: Mode,
    /// Longest blackout, if one was named: then the move is given up rather than made with a longer one.
    pub max_blackout: Option<Duration>,
    /// Most bytes a second, while the guest runs.
    pub bandwidth: Option<u64>,
    /// How long everything up to the commit may take.
    pub timeout: Option<Duration>,
}

/// Names of the modes, as people write them.
pub const MODES: [(&str, Mode); 4] = [
    ("auto", Mode::Auto),
    ("pre-copy", Mode::PreCopy),
    ("hybrid", Mode::Hybrid),
    ("stop-and-copy", Mode::StopAndCopy),
];

/// A member of a request that makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wrong(&'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} of the request makes no sense", self.0)
    }
}

impl std::error::Error for Wrong {}

impl Options {
    /// Writes them into a request.
    pub fn to_request(self, request: &mut Value) {
        let name = MODES.iter().find(|(_, mode)| *mode == self.mode).map(|(name, _)| name);
        request["mode"] = json!(name);
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        for (key, value) in [
            ("max_blackout_ns", self.max_blackout.map(ns)),
            ("bandwidth", self.bandwidth),
            ("timeout_ns", self.timeout.map(ns)),
        ] {
            if let Some(value) = value {
                request[key] = value.into();
            }
        }
    }

    /// Reads them from a request; what it does not name is as by default.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn from_request(request: &Map<String, Value>) -> Result<Self, Wrong> {
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
        Ok(Self {
            mode,
            max_blackout: number("max_blackout_ns")?.map(Duration::from_nanos),
            bandwidth: number("bandwidth")?,
            timeout: number("timeout_ns")?.map(Duration::from_nanos),
        })
    }

    /// As the machine takes them.
    #[must_use]
    pub fn settings(self) -> Settings {
        let usual = Settings::default();
        Settings {
            mode: self.mode,
            max_blackout: self.max_blackout.unwrap_or(usual.max_blackout),
            strict: self.max_blackout.is_some(),
            timeout: self.timeout,
            first_that_follows: (IMAGE_BASE / PAGE_SIZE) as usize,
            ..usual
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(options: Options) -> Result<Options, Wrong> {
        let mut request = json!({});
        options.to_request(&mut request);
        Options::from_request(request.as_object().unwrap())
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
        let wrong = |request: Value| Options::from_request(request.as_object().unwrap());
        assert_eq!(wrong(json!({ "mode": "fast" })), Err(Wrong("mode")));
        assert_eq!(wrong(json!({ "bandwidth": 0 })), Err(Wrong("bandwidth")));
        assert_eq!(wrong(json!({ "timeout_ns": "soon" })), Err(Wrong("timeout_ns")));
    }
}
