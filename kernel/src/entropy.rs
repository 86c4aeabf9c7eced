//! Random numbers, seeded by the host, seeded anew when the generation changes.

/// Fills `buffer` with random bytes fit for keys.
pub fn fill(_buffer: &mut [u8]) {
    unimplemented!()
}
