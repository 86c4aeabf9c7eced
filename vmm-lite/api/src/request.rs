//! Requests as the socket receives them.

use super::REQUEST_MAX;
use serde_json::{Map, Value};
use std::{
    io::{self, BufRead, Read},
    time::Duration,
};

/// A request: a verb and its arguments.
#[derive(Clone, PartialEq, Debug)]
pub struct Request(Map<String, Value>);

/// Why a line is not a request, for its sender. The connection is closed then.
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
    Json(#[from] serde_json::Error),
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
            _ => Ok(Some(Self(serde_json::from_slice(&line)?))),
        }
    }

    /// The verb; empty if there is none.
    #[must_use]
    pub fn verb(&self) -> &str {
        self.text("verb").unwrap_or_default()
    }

    /// A text member.
    #[must_use]
    pub fn text(&self, member: &str) -> Option<&str> {
        self.0.get(member).and_then(Value::as_str)
    }

    /// Whether a member is true; a missing one is not.
    #[must_use]
    pub fn flag(&self, member: &str) -> bool {
        self.0.get(member).and_then(Value::as_bool).unwrap_or_default()
    }

    /// A duration member, in ms; `None` if it is missing.
    ///
    /// # Errors
    /// If it is not a number.
    pub fn milliseconds(&self, member: &str) -> Result<Option<Duration>, String> {
        let number = |ms: &Value| ms.as_u64().map(Duration::from_millis);
        let wrong = || format!("{member} is not a number");
        self.0.get(member).map(|ms| number(ms).ok_or_else(wrong)).transpose()
    }

    /// All members.
    #[must_use]
    pub fn members(&self) -> &Map<String, Value> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_requests_or_errors() {
        let mut lines = &b"{\"verb\":\"pause\",\"quiesce_ms\":5}\n{}\n[1]\n"[..];
        let pause = Request::read(&mut lines).unwrap().unwrap();
        assert_eq!(pause.verb(), "pause");
        assert_eq!(pause.milliseconds("quiesce_ms"), Ok(Some(Duration::from_millis(5))));
        assert_eq!(pause.milliseconds("other"), Ok(None));
        assert!(pause.milliseconds("verb").is_err());
        assert_eq!(Request::read(&mut lines).unwrap().unwrap().verb(), "");
        assert!(matches!(Request::read(&mut lines), Err(Error::Json(_))));
        assert!(matches!(Request::read(&mut lines), Ok(None)));
        let long = vec![b' '; 2 * REQUEST_MAX];
        assert!(matches!(Request::read(&mut &long[..]), Err(Error::Long)));
    }
}
