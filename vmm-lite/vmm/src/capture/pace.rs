//! How much background work a thread does before it checks whether another thread waits for it.
//!
//! A guest that has just resumed touches page after page, and waits for each until the current
//! piece of background work is done. So pieces are small while there are faults, and grow when
//! there are none.

/// Pages in the first piece, and in the one after a fault.
const LEAST: usize = 8;
/// A piece without a fault makes the next one larger by this many …
const STEP: usize = 4;
/// … up to this.
pub const MOST: usize = 64;

/// The size of the next piece.
#[derive(Clone, Copy, Debug)]
pub struct Pace(usize);

impl Default for Pace {
    fn default() -> Self {
        Self(LEAST)
    }
}

impl Pace {
    /// How many pages to do next, given whether a thread waited since the last piece.
    pub fn next(&mut self, waited: bool) -> usize {
        self.0 = if waited { LEAST } else { (self.0 + STEP).min(MOST) };
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_grow_until_a_thread_waits() {
        let mut pace = Pace::default();
        let grown: Vec<_> = (0..20).map(|_| pace.next(false)).collect();
        assert!(grown.is_sorted() && grown[0] < MOST && grown[19] == MOST, "{grown:?}");
        assert_eq!(pace.next(true), LEAST);
        assert!(pace.next(false) < MOST / 2);
    }
}
