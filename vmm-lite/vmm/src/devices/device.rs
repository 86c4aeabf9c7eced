//! What the VMM does with a device on the bus, whatever kind it is of.

use super::{
    Violation,
    inputs::{Recording, Traffic, Unlike},
    net,
    state::DeviceState,
    throttle::Rates,
};
use crate::memory::Writable;
use migrate::input_log::Device as Inputs;
use std::{any::Any, fmt, os::fd::RawFd, time::Duration};

/// A device on the [`Bus`](super::bus::Bus). All is called on the vCPU thread, or on a thread that
/// holds the paused VM; nothing may block.
pub trait Device: Any + fmt::Debug + Send {
    /// Its name in messages.
    fn name(&self) -> &'static str;

    /// The driver reads at `offset` of its window.
    ///
    /// # Errors
    /// A [`Violation`].
    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Violation>;

    /// The driver writes at `offset` of its window.
    ///
    /// # Errors
    /// A [`Violation`].
    fn write(&mut self, offset: u64, data: &[u8], ram: Writable<'_>) -> Result<(), Violation>;

    /// At the doorbell, and while the guest waits: takes what the guest has queued, and gives it
    /// what there is for it.
    ///
    /// # Errors
    /// A [`Violation`].
    fn serve(&mut self, ram: Writable<'_>) -> Result<Service, Violation>;

    /// Takes what the guest has queued as its rate permits, and gives it nothing: for a guest that
    /// has just hinted its buffers as not needed.
    ///
    /// # Errors
    /// A [`Violation`].
    fn flush(&mut self, ram: Writable<'_>) -> Result<(), Violation>;

    /// Limits it, from now on, to those of these rates that concern it.
    fn limit(&mut self, rates: &Rates);

    /// The state to capture. Nothing that was taken from the guest is unfinished.
    fn save(&self) -> DeviceState;

    /// Continues from a captured state.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing has changed then.
    fn restore(&mut self, state: &DeviceState, ram: Writable<'_>) -> Result<(), RestoreError>;

    /// Forgets what its driver has done, which begins anew.
    fn reset(&mut self);

    /// What it notes of a guest that is recorded.
    fn recording(&mut self) -> &mut Recording;

    /// Takes and gives what the device of the recorded guest did, whatever the rate. Nothing else
    /// reaches the guest meanwhile.
    ///
    /// # Errors
    /// [`Unlike`].
    fn replay(
        &mut self,
        inputs: &Inputs,
        ram: Writable<'_>,
        traffic: Option<&mut dyn Traffic>,
    ) -> Result<(), Unlike>;
}

/// The result of serving a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service {
    /// Something has reached the guest, or more may wait: the guest goes on.
    pub progress: bool,
    /// A descriptor and poll events at which there is something to do again.
    pub poll: Option<(RawFd, i16)>,
    /// After this time there is something to do again.
    pub again_in: Option<Duration>,
    /// It cannot yet take what the guest has queued.
    pub stuck: bool,
}

/// Why devices cannot continue from a state.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum RestoreError {
    /// The network device's error.
    #[error(transparent)]
    Net(#[from] net::StateError),
    /// State and VM have different devices.
    #[error("the state and the VM do not have the same devices")]
    Devices,
}
