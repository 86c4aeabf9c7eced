//! `vmm-lite` as a user starts it.

use std::{
    path::{Path, PathBuf},
    sync::PoisonError,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    images::vmm_lite,
    process::{Process, run},
    runtime_dir::RuntimeDir,
    site::{Host, Site},
};

/// How long any operation may take before a test fails. It says nothing about speed: hosts are
/// busy, and some are emulated.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// `vmm-lite` on one host. Each has its own runtime directory and identity, as separate machines
/// do, and those of one site trust each other.
#[derive(Debug)]
pub struct Vmm {
    host: Host,
    runtime: RuntimeDir,
}

impl Vmm {
    /// For `host`.
    ///
    /// # Errors
    /// If the runtime directory or the identity cannot be made.
    pub fn on(host: &Host) -> Result<Self> {
        let this = Self { host: host.clone(), runtime: RuntimeDir::new()? };
        let mut others = host.identities.lock().unwrap_or_else(PoisonError::into_inner);
        let line = this.meet(&others, true)?;
        others.push((this.identity(), line));
        drop(others);
        Ok(this)
    }

    /// A host that trusts the present hosts of the site, and that none of them trusts.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn untrusted(host: &Host) -> Result<Self> {
        let this = Self { host: host.clone(), runtime: RuntimeDir::new()? };
        this.meet(&host.identities.lock().unwrap_or_else(PoisonError::into_inner), false)?;
        Ok(this)
    }

    /// Makes an identity that trusts `others`, and makes them trust it if it is `known`. Returns
    /// the line by which other hosts trust it.
    fn meet(&self, others: &[(PathBuf, String)], known: bool) -> Result<String> {
        let line = self.identity_verb(&self.identity(), &["init"])?;
        let name = |n: usize| format!("host{n}");
        for (n, (dir, other)) in others.iter().enumerate().filter(|(_, (dir, _))| dir.exists()) {
            self.identity_verb(&self.identity(), &["trust", other, "--name", &name(n)])?;
            if known {
                self.identity_verb(dir, &["trust", &line, "--name", &name(others.len())])?;
            }
        }
        Ok(line)
    }

    /// For both hosts of a site.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub fn on_both(site: &Site) -> Result<[Self; 2]> {
        let [a, b] = &site.hosts;
        Ok([Self::on(a)?, Self::on(b)?])
    }

    /// The directory of its identity.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.runtime.path().join("identity")
    }

    /// Runs `vmm-lite identity ARGS` with the identity in `dir`, and returns what it prints.
    fn identity_verb(&self, dir: &Path, args: &[&str]) -> Result<String> {
        let mut command = self.command(&["identity"])?;
        command.args(args).env("VMM_LITE_IDENTITY", dir);
        Ok(run(&mut command)?.trim().to_owned())
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The command `vmm-lite ARGS` on this host, not started.
    ///
    /// # Errors
    /// If `vmm-lite` has not been built.
    pub fn command(&self, args: &[&str]) -> Result<std::process::Command> {
        let mut command = self.host.ns.command(vmm_lite()?);
        command.args(args).env("XDG_RUNTIME_DIR", self.runtime.path());
        command.env("VMM_LITE_IDENTITY", self.identity());
        Ok(command)
    }

    /// Starts `vmm-lite run IMAGE ARGS`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn run(&self, image: &Path, args: &[&str]) -> Result<Process> {
        let image = image.to_string_lossy();
        let mut all = vec!["run", &*image];
        all.extend(args);
        Process::start(self.command(&all)?)
    }

    /// Starts `vmm-lite receive` on the host's migration address and waits until it listens.
    ///
    /// # Errors
    /// If it does not listen in time.
    pub fn receive(&self, port: u16, args: &[&str]) -> Result<Process> {
        let url = self.url(port);
        let mut all = vec!["receive", "--listen", &url];
        all.extend(args);
        let process = Process::start(self.command(&all)?)?;
        process.wait_for_line("listening", TIMEOUT)?;
        Ok(process)
    }

    /// The URL to which other hosts send VMs: `tcp://IP:PORT` on the migration network.
    #[must_use]
    pub fn url(&self, port: u16) -> String {
        format!("tcp://{}:{port}", self.host.migration_ip)
    }

    /// Moves VM `name` from here to `url` and returns the report.
    ///
    /// # Errors
    /// If the move fails, with the output of `vmm-lite migrate`.
    pub fn migrate(&self, name: &str, url: &str) -> Result<Value> {
        self.json(&["migrate", name, url, "--json"])
    }

    /// Runs a verb to its end; its output's last line is JSON.
    ///
    /// # Errors
    /// If the verb fails or prints no JSON.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        self.report(args)
    }

    /// Like [`json`](Self::json), with the type that the last line has in the `api` crate.
    ///
    /// # Errors
    /// If the verb fails or prints something else.
    pub fn report<T: DeserializeOwned>(&self, args: &[&str]) -> Result<T> {
        let out = run(&mut self.command(args)?)?;
        let last = out.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|e| Error::Protocol {
            what: format!("vmm-lite {args:?}: {e}"),
            said: out.clone(),
        })
    }
}
