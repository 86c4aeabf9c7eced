//! Checks that input from peers, files and guests cannot break an invariant, whatever it contains
//! (rule R4).
//!
//! Each module is a target: its `check` panics if an invariant does not hold. cargo-fuzz calls it
//! from `fuzz_targets/`, and the tests call it for the kept corpus and for [mutations](bounded) of
//! that. See `docs/checking.md`.
//!
//! A new target is a module here, an entry in [`TARGETS`], a file in `fuzz_targets/` with its
//! `[[bin]]`, and a few files in `corpus/`.

pub mod bounded;
pub mod control_page;
pub mod control_socket;
pub mod handshake;
pub mod image;
pub mod input_log;
pub mod journal;
mod memory;
pub mod queues;
pub mod replication;
pub mod snapshot;
pub mod wire;

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, in `corpus/` and `fuzz_targets/` too.
    pub name: &'static str,
    /// The check.
    pub check: fn(&[u8]),
    /// Most bytes that it may have allocated at any time, for inputs of at most
    /// [`bounded::INPUT_MAX`] bytes.
    pub memory: usize,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", check: wire::check, memory: 2 << 20 },
    Target { name: "handshake", check: handshake::check, memory: 2 << 20 },
    Target { name: "control_socket", check: control_socket::check, memory: 2 << 20 },
    Target { name: "image", check: image::check, memory: 6 << 20 },
    Target { name: "snapshot", check: snapshot::check, memory: 4 << 20 },
    Target { name: "input_log", check: input_log::check, memory: 2 << 20 },
    Target { name: "journal", check: journal::check, memory: 40 << 20 },
    Target { name: "queues", check: queues::check, memory: 8 << 20 },
    Target { name: "replication", check: replication::check, memory: 2 << 20 },
    Target { name: "control_page", check: control_page::check, memory: 2 << 20 },
];
