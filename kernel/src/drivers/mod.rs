//! Drivers of devices. They know the device, not what its data is for.

mod net_device;
#[cfg(target_os = "hermit")]
pub(crate) mod uart;
pub mod virtio;

pub use net_device::{Frame, NetDevice};
