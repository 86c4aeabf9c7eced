//! Requests: lines of JSON, as the socket receives them.

use super::{REQUEST_MAX, verb};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::io::{self, BufRead, Read};

/// Defines [`Request`]: for each verb a variant with the type of that name in [`verb`].
macro_rules! requests {
    ($($(#[$doc:meta])* $verb:literal => $variant:ident,)*) => {
        /// A request: a verb with its arguments.
        #[derive(Clone, PartialEq, Debug, Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(tag = "verb")]
        pub enum Request {
            $($(#[$doc])* #[serde(rename = $verb)] $variant(verb::$variant),)*
        }

        impl Request {
            /// The verb, as the member `verb` has it.
            #[must_use]
            pub fn verb(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $verb,)*
                }
            }

            fn parse(members: Map<String, Value>) -> Result<Self, Error> {
                match members.get("verb").and_then(Value::as_str).unwrap_or_default() {
                    $($verb => Ok(Self::$variant(arguments(members)?)),)*
                    other => Err(Error::Verb(other.to_owned())),
                }
            }
        }

        $(impl From<verb::$variant> for Request {
            fn from(arguments: verb::$variant) -> Self {
                Self::$variant(arguments)
            }
        })*
    };
}

requests! {
    /// Figures of the VM.
    "stats" => Stats,
    /// The figures for Prometheus.
    "metrics" => Metrics,
    /// Pause the VM.
    "pause" => Pause,
    /// Resume it.
    "resume" => Resume,
    /// End it.
    "stop" => Stop,
    /// Cancel the operation in progress.
    "cancel" => Cancel,
    /// Turn the connection into the console.
    "console" => Console,
    /// Move the VM.
    "migrate" => Migrate,
    /// Save it to a file.
    "snapshot" => Snapshot,
    /// Copy it for clones.
    "fork" => Fork,
    /// Revert it to a snapshot.
    "revert" => Revert,
    /// Protect it by a standby.
    "protect" => Protect,
    /// End that.
    "unprotect" => Unprotect,
    /// Swap roles with a standby.
    "failover" => Failover,
}

/// Why a line is not a request that can be served, for its sender.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No line arrived.
    #[error("the request did not come")]
    Io(#[from] io::Error),
    /// It exceeds the limit.
    #[error("the request is too long")]
    Long,
    /// It is not JSON, or another kind of value.
    #[error("the request is not an object in JSON: {0}")]
    Json(#[source] serde_json::Error),
    /// There is no such verb.
    #[error("{0:?} is no verb of this VM's control socket")]
    Verb(String),
    /// An argument is missing or has another type.
    #[error("{member:?} of the request is invalid: {why}")]
    Argument {
        /// Which; a path if it is a part of one.
        member: String,
        /// What is wrong.
        why: serde_json::Error,
    },
}

impl Error {
    /// Whether the VM closes the connection: what follows may be anything. After the other errors
    /// it serves the next request.
    #[must_use]
    pub fn closes(&self) -> bool {
        match self {
            Self::Io(_) | Self::Long | Self::Json(_) => true,
            Self::Verb(_) | Self::Argument { .. } => false,
        }
    }
}

fn arguments<T: for<'de> Deserialize<'de>>(members: Map<String, Value>) -> Result<T, Error> {
    serde_path_to_error::deserialize(Value::Object(members)).map_err(|e| {
        let member = e.path().to_string();
        Error::Argument { member, why: e.into_inner() }
    })
}

impl Request {
    /// Reads the next line, holding at most [`REQUEST_MAX`] bytes of it; `None` at the end.
    ///
    /// # Errors
    /// [`Error`].
    pub fn read(from: &mut impl BufRead) -> Result<Option<Self>, Error> {
        let mut line = Vec::new();
        from.take(REQUEST_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        match line.len() {
            0 => Ok(None),
            n if n > REQUEST_MAX => Err(Error::Long),
            _ => Self::parse(serde_json::from_slice(&line).map_err(Error::Json)?).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Request, Error> {
        Request::read(&mut format!("{text}\n").as_bytes()).map(Option::unwrap)
    }

    #[test]
    fn lines_are_requests_or_errors() {
        let pause = read(r#"{"verb":"pause","quiesce_ms":5,"later":1}"#).unwrap();
        assert_eq!(pause, Request::Pause(verb::Pause { quiesce_ms: Some(5) }));
        let least = read(r#"{"verb":"snapshot","timeout_ns":null}"#).unwrap();
        assert_eq!(least, Request::Snapshot(verb::Snapshot::default()));
        assert!(matches!(read("[1]"), Err(Error::Json(_))));
        assert!(matches!(Request::read(&mut &b""[..]), Ok(None)));
        let long = vec![b' '; 2 * REQUEST_MAX];
        assert!(matches!(Request::read(&mut &long[..]), Err(Error::Long)));
    }

    #[test]
    fn an_error_names_the_verb_or_the_argument() {
        for (text, said) in [
            ("{}", r#""" is no verb"#),
            (r#"{"verb":"fly"}"#, r#""fly" is no verb"#),
            (r#"{"verb":7}"#, r#""" is no verb"#),
            (r#"{"verb":"pause","quiesce_ms":"soon"}"#, r#""quiesce_ms" of the request"#),
            (r#"{"verb":"stop","force":1}"#, r#""force" of the request"#),
            (r#"{"verb":"migrate","to":"x","mode":"fast"}"#, r#""mode" of the request"#),
            (r#"{"verb":"migrate"}"#, "missing field `to`"),
            (
                r#"{"verb":"migrate","to":"x","identity":{"certificate":"","receivers":[["k"]]}}"#,
                r#""identity.receivers[0]" of the request"#,
            ),
            (r#"{"verb":"revert","clock":"stop"}"#, r#""clock" of the request"#),
        ] {
            let error = read(text).unwrap_err();
            assert!(!error.closes() && error.to_string().contains(said), "{text}: {error}");
        }
        assert!(read("nonsense").unwrap_err().closes());
    }
}
