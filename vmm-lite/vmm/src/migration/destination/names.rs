//! The VM's name on this host, owned by the process that receives the VM.

use std::{fmt::Debug, sync::Arc};

/// Why a name is not available.
pub type NameError = Box<dyn std::error::Error + Send + Sync>;

/// The names of this host's VMs.
pub trait Names: Send + Sync + Debug {
    /// Reserves a name for the VM that arrives, unless one is reserved for any VM. Returns the name
    /// that it will have.
    ///
    /// # Errors
    /// If another VM has it.
    fn reserve(&self, name: &str) -> Result<String, NameError>;

    /// The VM with this name does not run: the name is free again, unless it was reserved for any
    /// VM.
    fn release(&self);

    /// The VM runs here: clients may connect.
    ///
    /// # Errors
    /// If none can.
    fn open(&self) -> Result<(), NameError>;
}

/// A name that is released when this is dropped, unless its VM runs.
#[derive(Debug)]
pub(crate) struct Reserved {
    names: Arc<dyn Names>,
    opened: bool,
}

impl Reserved {
    /// Reserves a name; see [`Names::reserve`].
    pub fn new(names: &Arc<dyn Names>, name: &str) -> Result<(Self, String), NameError> {
        let name = names.reserve(name)?;
        Ok((Self { names: Arc::clone(names), opened: false }, name))
    }

    /// The VM runs here.
    pub fn open(&mut self) {
        self.opened = true;
        if let Err(e) = self.names.open() {
            tracing::error!("{}", crate::host::with_causes(&*e));
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if !self.opened {
            self.names.release();
        }
    }
}
