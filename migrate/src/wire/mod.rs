//! How messages are framed, checked, and laid out. See `PROTOCOL.md` for the bytes.

mod header;
mod message;
mod page_frame;

pub use header::{HEADER_SIZE, Header, Kind, MAGIC};
pub use message::{Accepted, Arrival, Message, Outcome, RUNS_PER_MESSAGE, Run, Started, decode};
pub(crate) use message::{gist, plain, read, small};
pub use page_frame::{PAGES_PER_FRAME, PageFrame, encode_page_frame_head};

/// Longest state of a VM, beside its memory, in bytes.
pub const STATE_MAX: u32 = 1 << 20;

/// Why bytes were not accepted as a message. The connection is then useless.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WireError {
    /// Not this protocol.
    #[error("the peer does not speak vmm-lite's migration protocol")]
    Magic,
    /// Another version.
    #[error(
        "the peer speaks protocol version {theirs}, this host {ours}: run the same vmm-lite on both"
    )]
    Version {
        /// This side's version.
        ours: u16,
        /// The peer's version.
        theirs: u16,
    },
    /// A kind of message that does not exist.
    #[error("the peer sent a message of kind {0}, which does not exist")]
    Kind(u16),
    /// Longer than a message of that kind may be.
    #[error("the peer announced {length} bytes for a message that may have {most}")]
    Length {
        /// Announced length.
        length: u32,
        /// Allowed length.
        most: u32,
    },
    /// The bytes differ from those that were sent.
    #[error("a message arrived damaged (checksum)")]
    Checksum,
    /// The body does not fit its kind.
    #[error("an invalid message arrived: {0}")]
    Body(&'static str),
}
