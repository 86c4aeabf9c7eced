//! The doorbell: one `out dx, eax` that carries all requests at once.
//!
//! The guest writes a set of [`Doorbell`] bits to [`PORT`] with a 32-bit `out`. Arguments are in
//! the control page. The VMM serves the bits in this order and returns to the guest when all are
//! served: [`CONSOLE`](Doorbell::CONSOLE), [`NET`](Doorbell::NET), [`WAIT`](Doorbell::WAIT),
//! [`QUIESCED`](Doorbell::QUIESCED), [`RECLAIMED`](Doorbell::RECLAIMED),
//! [`FAULT`](Doorbell::FAULT), [`EXIT`](Doorbell::EXIT). Only the first, while its output is not
//! read, the third and the fourth may block.

/// The I/O port of the doorbell. The guest's TSS permission bitmap allows it at CPL 3.
pub const PORT: u16 = 0x5d0;

/// A set of requests, as written to [`PORT`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Doorbell(pub u32);

impl Doorbell {
    /// Print the content of the console output ring.
    pub const CONSOLE: Self = Self(1 << 0);
    /// Serve the virtio-net queues both ways: send what is queued, fill receive buffers with what
    /// has arrived.
    pub const NET: Self = Self(1 << 1);
    /// Return when something arrived (packet, console input, quiesce request) or at
    /// [`wake_deadline_ns`](crate::control::ControlPage::wake_deadline_ns), whichever is first.
    /// Implies a [`NET`](Self::NET) pass before the wait and after it.
    pub const WAIT: Self = Self(1 << 2);
    /// The guest is quiescent and answers
    /// [`quiesce_request`](crate::control::ControlPage::quiesce_request) with the number it put in
    /// [`quiesce_answer`](crate::control::ControlPage::quiesce_answer). Returns after the resume,
    /// maybe on another host.
    pub const QUIESCED: Self = Self(1 << 3);
    /// The program ended; [`exit_code`](crate::control::ControlPage::exit_code) is its code. Does
    /// not return.
    pub const EXIT: Self = Self(1 << 4);
    /// The guest failed; the [`FaultReport`](crate::control::FaultReport) in the control page
    /// describes how. Does not return.
    pub const FAULT: Self = Self(1 << 5);
    /// The guest has returned memory and answers
    /// [`reclaim_request`](crate::control::ControlPage::reclaim_request).
    pub const RECLAIMED: Self = Self(1 << 6);

    /// The [ring of samples](crate::samples) has reached its limit. Rung alone, and only while the
    /// VMM has the ring in use.
    pub const SAMPLES: Self = Self(1 << 7);

    /// All bits that have a meaning. The VMM ends a guest that writes another.
    pub const ALL: Self = Self(0xff);

    /// Whether every bit of `other` is in `self`.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
