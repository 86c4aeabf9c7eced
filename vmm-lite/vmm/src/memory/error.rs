//! Why guest memory could not be had or used.

use std::io;

/// Why guest memory could not be had or used.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// The size cannot be that of a guest.
    #[error(
        "{0} bytes cannot be a guest's memory: it must be a multiple of 4096 between 2 MiB and 64 \
         GiB"
    )]
    Size(u64),
    /// The host has no such memory to give.
    #[error("cannot get {size} bytes of memory for the guest")]
    Allocate {
        /// How much was asked for.
        size: u64,
        /// What the host said.
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
