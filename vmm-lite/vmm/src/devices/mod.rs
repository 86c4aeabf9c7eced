//! What the guest talks to: the control page with its clock and console, and the network device.
//!
//! All of it runs on the vCPU thread, when the guest has rung the doorbell. What the guest writes
//! is checked before it is used; a guest that breaks a rule ends with a [`Violation`] that names
//! it, and the VMM goes on to say so.

pub mod arp;
pub mod clock;
pub mod console;
pub mod link;
pub mod net;
pub mod rate;
pub mod tap;
pub mod throttle;

/// What a guest did that no guest may do. It ends for it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Violation {
    /// Bits in a doorbell that have no meaning.
    #[error("the guest rang the doorbell with {0:#x}, which has bits that mean nothing")]
    Doorbell(u32),
    /// The doorbell port written otherwise than with one 32-bit `out`.
    #[error("the guest wrote {0} bytes at once to the doorbell port, which takes 4")]
    DoorbellSize(usize),
    /// A port that is not there.
    #[error("the guest used I/O port {0:#x}, which does not exist")]
    Port(u16),
    /// An address that is neither RAM nor a device.
    #[error("the guest used physical address {0:#x}, where there is neither memory nor a device")]
    Address(u64),
    /// `hlt`, from which nothing could wake it.
    #[error("the guest halted, and there are no interrupts to wake it")]
    Halted,
    /// A triple fault.
    #[error("the guest faulted while it handled a fault (triple fault)")]
    TripleFault,
    /// KVM cannot run what it tries.
    #[error("the guest at {rip:#x} tried something KVM cannot run: {what}")]
    CannotRun {
        /// What KVM said.
        what: String,
        /// Where.
        rip: u64,
    },
    /// Counters of a console ring that cannot be.
    #[error("the guest's console {ring} ring cannot hold the {bytes} bytes it claims")]
    ConsoleRing {
        /// `output` or `input`.
        ring: &'static str,
        /// The difference of its counters.
        bytes: u32,
    },
    /// A register of the network device used as it must not be.
    #[error("the guest used the network device wrongly: {0}")]
    NetRegister(String),
    /// A queue of the network device that cannot be.
    #[error("the guest's network {queue} queue is broken: {what}")]
    Queue {
        /// `receive` or `transmit`.
        queue: &'static str,
        /// What is wrong with it.
        what: String,
    },
}
