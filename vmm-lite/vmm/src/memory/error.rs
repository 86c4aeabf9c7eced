//! Why guest memory could not be allocated or used.

use std::io;

/// Why guest memory could not be allocated or used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// No guest can have memory of this size.
    #[error(
        "{0} bytes cannot be a guest's memory: it must be a multiple of 4096 between 2 MiB and 64 \
         GiB"
    )]
    Size(u64),
    /// The host cannot provide this memory.
    #[error("cannot get {size} bytes of memory for the guest")]
    Allocate {
        /// The requested size in bytes.
        size: u64,
        /// The host's error.
        source: io::Error,
    },
    /// Guest-physical range outside RAM.
    #[error("guest-physical {address:#x}+{len:#x} is outside of memory")]
    Outside {
        /// Start of the range.
        address: u64,
        /// Its length in bytes.
        len: u64,
    },
}
