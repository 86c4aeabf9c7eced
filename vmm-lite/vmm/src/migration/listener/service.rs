//! What a process does with the connections that it accepts.

use super::Session;
use crate::migration::{Error, connection::Transport, destination::stage::Stages};
use std::{net::TcpStream, sync::Arc};

/// What connections are for.
pub trait Service: Send + Sync + 'static {
    /// What the process still needs.
    fn stages(&self) -> &Stages;

    /// Whether the process has become a VM.
    fn taken(&self) -> bool;

    /// Serves a connection to its end. `session` counts as unauthenticated until the peer has
    /// introduced itself and sent its request.
    ///
    /// # Errors
    /// The error, for the log: other connections are not affected.
    fn serve(
        self: &Arc<Self>,
        stream: Arc<TcpStream>,
        transport: &Transport,
        session: &mut Session,
    ) -> Result<(), Error>;
}
