//! Error replies of commands, with Redis' texts.

use crate::store::WrongType;
use std::borrow::Cow;
use std::fmt;

/// The text after `-`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error(Cow<'static, str>);

/// A command's result: its reply is already written, unless there is an error.
pub type Outcome = Result<(), Error>;

impl Error {
    /// An error with this text, which begins with its code.
    #[must_use]
    pub const fn new(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// An error with a formatted text.
    #[must_use]
    pub fn text(text: String) -> Self {
        Self(Cow::Owned(text))
    }

    /// Wrong number of words for `command`.
    #[must_use]
    pub fn arity(command: &str) -> Self {
        Self::text(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<WrongType> for Error {
    fn from(WrongType: WrongType) -> Self {
        Self::new("WRONGTYPE Operation against a key holding the wrong kind of value")
    }
}

/// A word that is invalid in its place.
pub const SYNTAX: Error = Error::new("ERR syntax error");
/// A word that is not an integer.
pub const NOT_INTEGER: Error = Error::new("ERR value is not an integer or out of range");
/// The same for floating point.
pub const NOT_FLOAT: Error = Error::new("ERR value is not a valid float");
/// An overflowing sum.
pub const OVERFLOW: Error = Error::new("ERR increment or decrement would overflow");
/// RENAME and other commands need the key.
pub const NO_SUCH_KEY: Error = Error::new("ERR no such key");
/// An index outside of a list.
pub const INDEX_OUT_OF_RANGE: Error = Error::new("ERR index out of range");
/// A negative count.
pub const NOT_POSITIVE: Error = Error::new("ERR value is out of range, must be positive");
/// Memory is short.
pub const OUT_OF_MEMORY: Error =
    Error::new("OOM command not allowed when used memory > 'maxmemory'.");
