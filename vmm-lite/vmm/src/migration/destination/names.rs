//! The name that a VM has on this host, which the process that receives it keeps.

use std::{fmt::Debug, sync::Arc};

/// Why a name cannot be had.
pub type NameError = Box<dyn std::error::Error + Send + Sync>;

/// The names of this host's VMs, as the process of one has them.
pub trait Names: Send + Sync + Debug {
    /// Reserves a name for the VM that comes, unless one is reserved for whatever comes. Returns
    /// the name that it is going to have.
    ///
    /// # Errors
    /// When another VM has it.
    fn reserve(&self, name: &str) -> Result<String, NameError>;

    /// The VM that came with the name does not run: it is free again, unless it was reserved for
    /// whatever comes.
    fn release(&self);

    /// The VM runs here: clients may come.
    ///
    /// # Errors
    /// When none can.
    fn open(&self) -> Result<(), NameError>;
}

/// A name that is released when this is dropped, unless its VM runs.
#[derive(Debug)]
pub(super) struct Reserved {
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
