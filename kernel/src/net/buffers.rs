//! How much buffer a new connection gets.
//!
//! smoltcp's buffers cannot grow, and a guest may have 16 MiB and thousands of connections. So each
//! new connection gets a fixed share of what is left of a budget: the first ones have windows that
//! fill a link, and the thousandth still works.

use super::Error;

/// Largest buffer of one direction.
const LARGEST: usize = 64 << 10;
/// Smallest one, given also when the budget is used up: then the number of connections bounds
/// memory.
const SMALLEST: usize = 1 << 10;
/// A connection's buffers take at most this part of what is left.
const SHARE: usize = 24;

/// Memory that new connections leave to existing ones, bytes.
const RESERVE: usize = 256 << 10;

/// What all connections together should take.
#[derive(Debug)]
pub struct Budget {
    total: usize,
    used: usize,
}

impl Budget {
    /// A budget of `total` bytes.
    #[must_use]
    pub const fn new(total: usize) -> Self {
        Self { total, used: 0 }
    }

    /// Buffers for a new connection: the size of each direction's, bytes. `has_room` says whether
    /// that many bytes can be allocated in one piece; `ends` is 2 if both ends of the connection
    /// will be in this guest: then there must be room for the other as well.
    ///
    /// # Errors
    /// [`Error::NoMemory`] when there should be no more connections.
    pub fn take(&mut self, ends: usize, has_room: fn(usize) -> bool) -> Result<usize, Error> {
        let share = self.total.saturating_sub(self.used) / SHARE / 2;
        let size = share.next_power_of_two() / if share.is_power_of_two() { 1 } else { 2 };
        let size = size.clamp(SMALLEST, LARGEST);
        let needed = |size| ends * (RESERVE + 2 * size);
        let size = if has_room(needed(size)) { size } else { SMALLEST };
        if !has_room(needed(size)) {
            return Err(Error::NoMemory);
        }
        self.used += 2 * size;
        Ok(size)
    }

    /// What is taken.
    #[cfg(test)]
    pub fn used(&self) -> usize {
        self.used
    }

    /// Part of the budget that connections in TIME-WAIT may hold.
    pub fn idle_share(&self) -> usize {
        self.total / 16
    }

    /// Gives back what [`take`](Self::take) gave.
    pub fn give_back(&mut self, size: usize) {
        self.used -= 2 * size;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn first_connections_get_large_buffers_and_all_get_some() {
        let mut budget = Budget::new(4 << 20);
        let sizes: Vec<usize> = (0..2000).map(|_| budget.take(1, |_| true).unwrap()).collect();
        assert_eq!(sizes[0], 64 << 10);
        assert!(sizes.windows(2).all(|w| w[0] >= w[1]));
        assert_eq!(sizes[1999], SMALLEST);
        let total: usize = sizes.iter().map(|s| 2 * s).sum();
        assert!(total < (4 << 20) + 2000 * 2 * SMALLEST, "{total}");
        for size in sizes {
            budget.give_back(size);
        }
        assert_eq!(budget.used, 0);
    }

    #[test]
    fn a_large_guest_gives_large_windows() {
        let mut budget = Budget::new(64 << 20);
        assert!((0..50).all(|_| budget.take(1, |_| true) == Ok(LARGEST)));
        assert_eq!(budget.take(1, |n| n < RESERVE), Err(Error::NoMemory));
        assert_eq!(budget.take(1, |n| n < RESERVE + 10_000), Ok(SMALLEST));
        assert_eq!(budget.take(2, |n| n < RESERVE + 10_000), Err(Error::NoMemory));
    }
}
