//! Records on their way from the vCPU to the standbys.

use super::set::Set;
use crate::vm::{Log, Urgency};
use migrate::replication::wire::{RECORD_MAX, RECORDS_MAX, put_record};
use std::{fmt, io, sync::Arc};

/// Records beyond these are sent without waiting for an urgent one, in bytes.
const BATCH: usize = 64 << 10;
/// Most bytes that are kept for a standby that is being seeded.
const KEPT_MAX: usize = 256 << 20;

/// The records that no standby was sent yet, and those that one which is being seeded will need.
#[derive(Debug, Default)]
pub struct Recent {
    /// Each behind its length.
    bytes: Vec<u8>,
    /// Where each begins.
    starts: Vec<usize>,
    /// Position of the first of them.
    first: u64,
    /// Position of the last that the state machine knows.
    told: u64,
    /// Bytes that the state machine knows.
    told_bytes: usize,
    /// Nothing is forgotten: a standby is being seeded.
    keeps: bool,
    /// Something had to be forgotten all the same.
    pub overflowed: bool,
}

impl Recent {
    /// The log ends with the record at `last`.
    pub fn after(last: u64) -> Self {
        Self { first: last + 1, told: last, ..Self::default() }
    }

    /// Position of the last record.
    pub fn last(&self) -> u64 {
        self.first + self.starts.len() as u64 - 1
    }

    /// Whether there are records that the state machine does not know.
    pub fn is_new(&self) -> bool {
        self.last() > self.told
    }

    fn add(&mut self, record: &[u8]) {
        self.starts.push(self.bytes.len());
        put_record(&mut self.bytes, record);
    }

    /// The state machine is told of what is new: the last position, and how many bytes came.
    pub fn tell(&mut self) -> (u64, u64) {
        let bytes = self.bytes.len() - self.told_bytes;
        (self.told, self.told_bytes) = (self.last(), self.bytes.len());
        (self.told, bytes as u64)
    }

    /// From now on keeps everything, or no longer.
    pub fn keep(&mut self, keeps: bool) {
        (self.keeps, self.overflowed) = (keeps, false);
        self.forget();
    }

    /// Forgets what was sent, unless it is kept.
    pub fn forget(&mut self) {
        if self.keeps && self.bytes.len() > KEPT_MAX {
            (self.keeps, self.overflowed) = (false, true);
        }
        if !self.keeps {
            self.first = self.last() + 1;
            self.bytes.clear();
            self.starts.clear();
            self.told_bytes = 0;
        }
    }

    /// The records from `first` to `last` in pieces that fit a message: the last position of each,
    /// and its bytes. `None`: they were forgotten.
    pub fn pieces(&self, first: u64, last: u64) -> Option<Vec<(u64, &[u8])>> {
        let mut pieces = Vec::new();
        let start = |position: u64| {
            let at = usize::try_from(position.checked_sub(self.first)?).ok()?;
            if at == self.starts.len() {
                Some(self.bytes.len())
            } else {
                self.starts.get(at).copied()
            }
        };
        let (mut from, mut position) = (start(first)?, first);
        while position <= last {
            let end = start(position + 1)?;
            let fits =
                |to: u64| start(to + 1).is_some_and(|end| end - from <= RECORDS_MAX as usize);
            if position < last && fits(position + 1) {
                position += 1;
                continue;
            }
            pieces.push((position, &self.bytes[from..end]));
            (from, position) = (end, position + 1);
        }
        Some(pieces)
    }
}

/// The vCPU thread's side.
pub struct SetLog(pub Arc<Set>);

impl fmt::Debug for SetLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetLog").finish_non_exhaustive()
    }
}

impl Log for SetLog {
    fn append(&mut self, position: u64, record: &[u8], urgency: Urgency) -> io::Result<()> {
        if record.len() > RECORD_MAX {
            return Err(io::Error::other("the guest was given too much at once for one record"));
        }
        let Self(set) = self;
        let mut core = set.lock();
        core.recent.add(record);
        fail_point!("protection.appended");
        if urgency >= Urgency::Copy || core.recent.bytes.len() - core.recent.told_bytes >= BATCH {
            core.send_recent();
        }
        let (gate, slow) = (Arc::clone(&core.gate), core.slow);
        drop(core);
        if slow {
            set.wait_while_slow();
        }
        gate.depend_on(position);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrate::replication::wire::split_records;

    #[test]
    fn records_are_found_by_their_positions() {
        let mut recent = Recent::after(4);
        assert!(!recent.is_new());
        (5..9).for_each(|n| recent.add(&[n; 3]));
        assert_eq!((recent.last(), recent.tell()), (8, (8, 28)));
        let pieces = recent.pieces(6, 8).unwrap();
        let [(8, bytes)] = pieces[..] else { panic!("{pieces:?}") };
        assert_eq!(split_records(bytes, 3).unwrap(), [[6; 3], [7; 3], [8; 3]]);
        assert!(recent.pieces(4, 8).is_none() && recent.pieces(6, 9).is_none());
        recent.keep(true);
        recent.forget();
        assert!(recent.pieces(5, 5).is_some());
        recent.keep(false);
        assert!(recent.pieces(8, 8).is_none());
        assert_eq!((recent.last(), recent.is_new()), (8, false));
    }

    #[test]
    fn more_than_fits_a_message_is_several() {
        let mut recent = Recent::after(0);
        let long = vec![1; RECORDS_MAX as usize / 2 - 10];
        (0..3).for_each(|_| recent.add(&long));
        let pieces = recent.pieces(1, 3).unwrap();
        let lasts: Vec<_> = pieces.iter().map(|(last, _)| *last).collect();
        assert_eq!(lasts, [2, 3]);
    }
}
