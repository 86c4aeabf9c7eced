//! The guest's devices: console and clock, which the control page has, and those with registers.
//!
//! - [`bus`], [`device`], [`state`]: the devices with registers, whatever kind they are of
//! - [`virtio`]: what all kinds of virtio devices have in common
//! - [`net`]: the network device, and the host's end of its wire
//! - [`console`], [`clock`]: the control page's
//! - [`gate`]: output that waits until its log is safe
//! - [`inputs`]: what passes between a guest and its devices, recorded and replayed
//! - [`rate`], [`throttle`]: rate limits
//!
//! A new kind of device gets a folder with a [`Device`](device::Device), a variant of
//! [`DeviceState`](state::DeviceState), and a section kind in the VM's [codec](crate::vm::codec).
//!
//! The vCPU thread serves all of them when the guest rings the doorbell. It checks what the guest
//! writes before it uses it; a guest that breaks a rule ends with a [`Violation`] that names it,
//! and the VMM reports it.

pub mod bus;
pub mod clock;
pub mod console;
pub mod device;
pub mod gate;
pub mod inputs;
pub mod net;
pub mod rate;
mod set;
pub mod state;
pub mod throttle;
pub mod virtio;

pub use set::Devices;

/// A rule that the guest broke. The guest ends because of it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Bits in a doorbell that have no meaning.
    #[error("the guest rang the doorbell with {0:#x}, which has bits that mean nothing")]
    Doorbell(u32),
    /// The doorbell port written otherwise than with one 32-bit `out`.
    #[error("the guest wrote {0} bytes at once to the doorbell port, which takes 4")]
    DoorbellSize(usize),
    /// A port that does not exist.
    #[error("the guest used I/O port {0:#x}, which does not exist")]
    Port(u16),
    /// An address that is neither RAM nor a device.
    #[error("the guest used physical address {0:#x}, where there is neither memory nor a device")]
    Address(u64),
    /// `hlt`, which nothing could end.
    #[error("the guest halted, and there are no interrupts to wake it")]
    Halted,
    /// A triple fault.
    #[error("the guest faulted while it handled a fault (triple fault)")]
    TripleFault,
    /// KVM cannot run the guest's code.
    #[error("the guest at {rip:#x} tried something KVM cannot run: {what}")]
    CannotRun {
        /// KVM's reason.
        what: String,
        /// The guest's instruction pointer.
        rip: u64,
    },
    /// More samples than there is room for.
    #[error(transparent)]
    Samples(#[from] crate::memory::TooMany),
    /// Impossible counters of a console ring.
    #[error("the guest's console {ring} ring cannot hold the {bytes} bytes it claims")]
    ConsoleRing {
        /// `output` or `input`.
        ring: &'static str,
        /// The difference of its counters.
        bytes: u32,
    },
    /// The driver used a register of a device wrongly.
    #[error("the guest used the {device} device wrongly: {what}")]
    Register {
        /// The device's name.
        device: &'static str,
        /// What the driver did.
        what: String,
    },
    /// An invalid queue of a device.
    #[error("the guest's {device} {queue} queue is broken: {what}")]
    Queue {
        /// The device's name.
        device: &'static str,
        /// The queue's name, such as `receive`.
        queue: &'static str,
        /// What is wrong with it.
        what: String,
    },
}
