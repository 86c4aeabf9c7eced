//! A VM with a client, and the two hosts between which it moves.

use crate::client::{Client, PORT as GUEST_PORT, Talk};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// Where destinations listen.
pub const PORT: u16 = 7000;

/// The VM, named `d`, wherever it is.
pub struct Lab {
    // Dropped with what is in it.
    _site: Site,
    vmms: [Vmm; 2],
    /// Which of the hosts it runs on.
    at: usize,
    vm: Process,
    pub client: Client,
}

impl Lab {
    /// Runs `app` on the first host, with its `own` arguments besides where it listens; `None`
    /// where there can be no site, which is said aloud.
    pub fn new(test: &str, app: &str, memory: &str, own: &[&str], talk: Talk) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmms = Vmm::on_both(&site).unwrap();
        let port = GUEST_PORT.to_string();
        let args = ["--name", "d", "--memory", memory, "--tap", "tap0", "--ip", "10.0.0.2/24"];
        let args = [&args[..], &["--", "--port", &port], own].concat();
        let vm = vmms[0].run(&image(app).unwrap(), &args).unwrap();
        let client = Client::start(&site.client, talk);
        Some(Self { _site: site, vmms, at: 0, vm, client })
    }

    /// Where it runs.
    pub fn here(&self) -> &Vmm {
        &self.vmms[self.at]
    }

    /// Where it is to move to.
    pub fn there(&self) -> &Vmm {
        &self.vmms[1 - self.at]
    }

    pub fn migrate(&self, options: &[&str]) -> vmm_lite_lab::Result<serde_json::Value> {
        let url = self.there().url(PORT);
        self.here().json(&[&["migrate", "d", &url, "--json"], options].concat())
    }

    /// A move succeeds, to this process.
    #[track_caller]
    pub fn moves(&mut self, what: &str, options: &[&str], destination: Process) {
        self.migrate(options).unwrap_or_else(|e| {
            panic!("{what}: {e}\n{}\n{}", self.vm.output(), destination.output())
        });
        assert!(self.vm.wait(TIMEOUT).unwrap().success(), "{what}: {}", self.vm.output());
        self.vm = destination;
        self.at = 1 - self.at;
        self.client.hears(what);
    }
}
