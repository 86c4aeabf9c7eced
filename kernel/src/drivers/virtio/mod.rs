//! virtio devices over virtio-mmio.
//!
//! - [`mmio`]: the registers
//! - `queue`, `memory`: split queues, and the memory that is shared with the device
//! - [`net`]: the network device

mod memory;
pub mod mmio;
pub mod net;
pub(crate) mod queue;
