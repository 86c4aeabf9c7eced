//! virtio over virtio-mmio, for any kind of device: registers, feature negotiation, queues,
//! buffers, and the state of these.
//!
//! A device sends no interrupts and needs no notifications: the doorbell says when to look at the
//! queues, and the used rings tell drivers not to notify. [`Transport`] is the driver's view,
//! [`TransportState`] what is captured of it; [`Queue`]s are taken from with [`next`], and
//! [`Buffers`] say where in memory a chain of descriptors is.

mod buffers;
mod queue;
mod state;
mod transport;

pub use buffers::{Buffers, Parts};
pub use queue::{done, next, put_back};
pub use state::{QueueState, TransportError, TransportState};
pub use transport::{Change, Transport};
pub use virtio_queue::{Queue, QueueT};

use super::Violation;

/// Most descriptors of a queue.
pub const QUEUE_MAX: u16 = 256;
/// Size in bytes of the window of a device's registers.
pub const WINDOW: u64 = 0x200;

/// What the transport has to know of a kind of device with `N` queues.
#[derive(Debug)]
pub struct Model<const N: usize> {
    /// Its name in messages.
    pub name: &'static str,
    /// The number that virtio gives to this kind.
    pub id: u32,
    /// The features that it offers, those of the transport included.
    pub features: u64,
    /// The names of its queues in messages.
    pub queues: [&'static str; N],
}

impl<const N: usize> Model<N> {
    /// The driver used a register wrongly.
    #[must_use]
    pub fn wrong(&self, what: String) -> Violation {
        Violation::Register { device: self.name, what }
    }

    /// Queue number `queue` is invalid.
    ///
    /// # Panics
    /// If there is no such queue.
    #[must_use]
    pub fn broken(&self, queue: usize, what: String) -> Violation {
        Violation::Queue { device: self.name, queue: self.queues[queue], what }
    }
}
