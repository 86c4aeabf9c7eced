//! Where the verbs that start a VM serve its figures (`--metrics`).

use super::confinement::Confinement;
use crate::metrics::{At, Endpoint};
use vmm::vm::Vm;

/// The figures of a process's one VM, if they are served anywhere. Dropping it takes a Unix socket
/// out of the file system.
#[derive(Debug)]
pub struct Figures(Option<Endpoint>);

impl Figures {
    /// Confines the process, whose VM has at most so much `memory`, and serves figures `at` that
    /// place from then on: to listen there may take rights, and to serve takes a thread, of which
    /// there may be no other before.
    ///
    /// # Errors
    /// When the place cannot be had, or what the host says: then nothing may go on.
    pub fn serve_confined(
        at: Option<&At>,
        confinement: &Confinement,
        memory: u64,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let mut endpoint = at.map(Endpoint::listen).transpose()?;
        confinement.enter(memory)?;
        if let Some(endpoint) = &mut endpoint {
            endpoint.serve()?;
        }
        Ok(Self(endpoint))
    }

    /// The VM whose figures they are from now on; before, they say that there is none.
    pub fn show(&self, vm: &Vm) {
        if let Some(endpoint) = &self.0 {
            endpoint.shows(vm);
        }
    }
}
