//! A VM that has lost its last standby is protected by another one of a list.

use super::{identity::Security, protect, secured};
use api::verb;
use vmm::{migration::address::Address, replication::protection::Protector};

/// The option.
#[derive(clap::Args, Clone, Debug)]
#[group(skip)]
pub struct List {
    /// Protect the VM again by this standby, on its own, when it has lost its last one; repeat it
    /// for more: the first that accepts the VM is taken
    #[arg(long = "standby", value_name = "tcp://HOST:PORT[#KEY]")]
    standbys: Vec<Address>,
}

impl List {
    /// Starts the process that does it; `None` without a list. Call it while there is only one
    /// thread.
    ///
    /// # Errors
    /// If this host cannot protect a VM by one of them.
    pub fn start(
        &self,
        arbiter: &protect::Arbiter,
        security: &Security,
    ) -> Result<Option<Protector>, Box<dyn std::error::Error>> {
        if self.standbys.is_empty() {
            return Ok(None);
        }
        for to in &self.standbys {
            secured::check(security, to)?;
        }
        let one = |name: &str, to: &Address| {
            // What else there is to say the VM has been told.
            let request = verb::Protect {
                to: to.to_string(),
                alone_without_arbiter: arbiter.alone_without_arbiter,
                ..verb::Protect::default()
            };
            protect::ask(name, to, request, (&arbiter.arbiter, None), security, |_| {}).is_ok()
        };
        // The next attempt is made soon, and the VM's process tells why one has failed.
        let all = |name: &str| self.standbys.iter().any(|to| one(name, to));
        Ok(Some(Protector::start(all)?))
    }
}
