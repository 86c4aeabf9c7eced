//! Clocks and random numbers of the CPU that a program reads by itself.

use serde::{Deserialize, Serialize};
use std::fmt;
use vmm_lite_interface::note::OwnClockNote;

/// What is known of instructions by which the program itself, not its kernel, reads clocks or
/// random numbers of the CPU. Their results are not in the input log, so its runs cannot be
/// repeated exactly.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct OwnClock {
    /// How many there are; `None`: nobody has looked.
    pub count: Option<u32>,
    /// The first of them, as `FUNCTION+OFFSET: INSTRUCTION`.
    pub first: Vec<String>,
}

impl OwnClock {
    /// Whether it is certain that there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.count == Some(0)
    }
}

impl From<OwnClockNote<'_>> for OwnClock {
    fn from(note: OwnClockNote<'_>) -> Self {
        Self { count: note.count, first: note.first.lines().map(str::to_owned).collect() }
    }
}

/// Names come from files and peers: control characters in them are escaped.
impl fmt::Display for OwnClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(count) = self.count else { return f.write_str("unknown") };
        write!(f, "{count}")?;
        for (n, line) in self.first.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { " (" } else { ", " }, line.escape_debug())?;
        }
        match self.first.len() {
            0 => Ok(()),
            named if (named as u64) < u64::from(count) => f.write_str(", ...)"),
            _ => f.write_str(")"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_shown_in_one_line() {
        let shown = |count, first: &[&str]| {
            let first = first.iter().map(|&line| line.to_owned()).collect();
            OwnClock { count, first }.to_string()
        };
        assert_eq!(shown(None, &[]), "unknown");
        assert_eq!(shown(Some(0), &[]), "0");
        assert_eq!(shown(Some(1), &["a::b+0x1: rdtsc"]), "1 (a::b+0x1: rdtsc)");
        assert_eq!(shown(Some(3), &["a", "b\u{1b}"]), "3 (a, b\\u{1b}, ...)");
    }
}
