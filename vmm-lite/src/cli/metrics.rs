//! Where the verbs that start a VM serve its metrics (`--metrics`).

use super::confinement::Confinement;
use crate::metrics::{At, Endpoint};
use vmm::replication::protection::Member;

/// The metrics endpoint of the process's VM, if there is one. Dropping it removes its Unix socket
/// from the file system.
#[derive(Debug)]
pub struct Figures(Option<Endpoint>);

impl Figures {
    /// Confines the process, whose VM has at most `memory` bytes, and serves metrics `at` that
    /// place from then on. Listening may take privileges, so it comes first; serving takes a
    /// thread, so it comes after the confinement.
    ///
    /// # Errors
    /// If it cannot listen there, or the host's error: the process must then not continue.
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

    /// Serves the metrics of this VM from now on; until then they report that there is none.
    pub fn show(&self, member: &Member) {
        if let Some(endpoint) = &self.0 {
            endpoint.shows(member);
        }
    }
}
