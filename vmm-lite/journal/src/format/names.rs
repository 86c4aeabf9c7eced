//! Names of the files in a journal's directory.

/// The manifest: a directory with this file is a journal.
pub const MANIFEST: &str = "journal";
/// The file whose lock the writer holds.
pub const LOCK: &str = "lock";
/// Suffix of files that are not finished. The next writer removes them.
pub const NEW: &str = ".new";

/// A snapshot that is not registered yet: its position is known only when it is finished.
pub const NEW_SNAPSHOT: &str = "snapshot.new";

/// Digits of a position in a name: all that a u64 can have, so that names sort by position.
const DIGITS: usize = 20;

const SEGMENT: &str = "log-";
const SNAPSHOT: &str = "snapshot-";
const RESUME: &str = "resume-";

/// What a file in the directory is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Name {
    /// The manifest.
    Manifest,
    /// The lock file.
    Lock,
    /// A segment, with its first position.
    Segment(u64),
    /// A snapshot at a position.
    Snapshot(u64),
    /// What registers the snapshot at a position.
    Resume(u64),
    /// A file that was not finished.
    Unfinished,
    /// Something that is not the journal's.
    Foreign,
}

impl Name {
    /// What the file `name` is.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            MANIFEST => return Self::Manifest,
            LOCK => return Self::Lock,
            NEW_SNAPSHOT => return Self::Unfinished,
            _ => {}
        }
        if let Some(name) = name.strip_suffix(NEW) {
            return match Self::of(name) {
                Self::Foreign | Self::Lock | Self::Unfinished => Self::Foreign,
                _ => Self::Unfinished,
            };
        }
        let position = |prefix| {
            let digits: &str = name.strip_prefix(prefix)?;
            let all = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
            if all { digits.parse().ok() } else { None }
        };
        if let Some(first) = position(SEGMENT) {
            Self::Segment(first)
        } else if let Some(at) = position(SNAPSHOT) {
            Self::Snapshot(at)
        } else if let Some(at) = position(RESUME) {
            Self::Resume(at)
        } else {
            Self::Foreign
        }
    }
}

/// Name of the segment whose first record is `first`.
#[must_use]
pub fn segment(first: u64) -> String {
    format!("{SEGMENT}{first:020}")
}

/// Name of the snapshot at `position`.
#[must_use]
pub fn snapshot(position: u64) -> String {
    format!("{SNAPSHOT}{position:020}")
}

/// Name of the file that registers the snapshot at `position`.
#[must_use]
pub fn resume(position: u64) -> String {
    format!("{RESUME}{position:020}")
}

/// Name of a file until it is finished.
#[must_use]
pub fn unfinished(name: &str) -> String {
    format!("{name}{NEW}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_what_they_name() {
        for position in [0, 1, 4_000_000_000, u64::MAX] {
            assert_eq!(Name::of(&segment(position)), Name::Segment(position));
            assert_eq!(Name::of(&snapshot(position)), Name::Snapshot(position));
            assert_eq!(Name::of(&resume(position)), Name::Resume(position));
            assert_eq!(Name::of(&unfinished(&segment(position))), Name::Unfinished);
        }
        assert_eq!(Name::of("journal"), Name::Manifest);
        assert_eq!(Name::of("lock"), Name::Lock);
        assert_eq!(Name::of("journal.new"), Name::Unfinished);
        for foreign in [
            "log-1",
            "log-99999999999999999999",
            "log-+0000000000000000001",
            "notes.new",
            "lock.new",
            "journal.new.new",
            "",
        ] {
            assert_eq!(Name::of(foreign), Name::Foreign, "{foreign}");
        }
    }
}
