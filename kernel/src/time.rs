//! Clocks: read without an exit.

/// Nanoseconds since the guest's first boot. Never goes back, also across a move.
#[must_use]
pub fn now_ns() -> u64 {
    unimplemented!()
}

/// Nanoseconds since 1970.
#[must_use]
pub fn wall_ns() -> u64 {
    unimplemented!()
}
