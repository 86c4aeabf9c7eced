//! A VM with a client, and the two hosts between which it moves.

use crate::client::{Client, PORT as GUEST_PORT, Talk};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// The port on which destinations listen.
pub const PORT: u16 = 7000;

/// The VM, named `d`, on whichever host it is.
pub struct Lab {
    // Dropped together with its hosts.
    _site: Site,
    vmms: [Vmm; 2],
    /// The host on which it runs.
    at: usize,
    vm: Process,
    pub client: Client,
}

impl Lab {
    /// Runs `app` on the first host, with its `own` arguments besides its address; `None` after
    /// reporting a skip if there is no test bed.
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

    /// The host on which it runs.
    pub fn here(&self) -> &Vmm {
        &self.vmms[self.at]
    }

    /// The host to which it moves next.
    pub fn there(&self) -> &Vmm {
        &self.vmms[1 - self.at]
    }

    pub fn migrate(&self, options: &[&str]) -> vmm_lite_lab::Result<serde_json::Value> {
        let url = self.there().url(PORT);
        self.here().json(&[&["migrate", "d", &url, "--json"], options].concat())
    }

    /// Checks that a move to this process succeeds.
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
