//! A VM moves to the host that is expected at an address, and to no other trusted host.

use serde_json::Value;
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

struct Lab {
    _site: Site,
    /// The host of the VM, and two that may receive it, at one address.
    hosts: [Vmm; 3],
    vm: Process,
}

impl Lab {
    fn new(test: &str) -> Option<Self> {
        let site = Site::for_test(test)?;
        let hosts = [0, 1, 1].map(|n| Vmm::on(&site.hosts[n]).unwrap());
        let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
        let vm = hosts[0].run(&image("dirtier").unwrap(), &args).unwrap();
        vm.wait_for_line("passes=", TIMEOUT).unwrap();
        Some(Self { _site: site, hosts, vm })
    }

    fn identity(&self, n: usize, args: &[&str]) -> String {
        let out = self.hosts[n].command(&[&["identity"], args].concat()).unwrap().output().unwrap();
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn key(&self, n: usize) -> String {
        let shown: Value = serde_json::from_str(&self.identity(n, &["show", "--json"])).unwrap();
        shown["key"].as_str().unwrap().to_owned()
    }

    fn at(&self) -> String {
        format!("{}:7000", self.hosts[1].host().migration_ip)
    }

    /// The error of a `migrate` that fails, as text and as an event; the VM keeps running.
    fn refused(&mut self, to: &str, args: &[&str]) -> String {
        let all = [&["migrate", "d", to, "--json"], args].concat();
        let out = self.hosts[0].command(&all).unwrap().output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{said}");
        let stats = self.hosts[0].json(&["stats", "d", "--json"]).unwrap();
        assert!(self.vm.is_running() && stats["state"] == "running", "{stats}");
        said
    }
}

#[test]
fn a_move_to_one_of_several_hosts_needs_the_expected_one() {
    let Some(mut lab) = Lab::new("which host is meant") else { return };
    let url = format!("tcp://{}", lab.at());
    let said = lab.refused(&url, &[]);
    for part in ["several may receive VMs (host", "#ed25519:", "--at 10.9.0.2:7000"] {
        assert!(said.contains(part), "{said}");
    }
    // An invalid key, one that no host has, and one where no key is proved.
    let none = lab.hosts[0].command(&["migrate", "d", &format!("{url}#hostb")]).unwrap().output();
    assert_eq!(none.unwrap().status.code(), Some(2));
    let own = lab.key(0);
    let said = lab.refused(&format!("{url}#{own}"), &[]);
    assert!(said.contains("not trusted to receive VMs from here"), "{said}");
    let said = lab.refused(&format!("{url}#{own}"), &["--plaintext"]);
    assert!(said.contains("leave #KEY out"), "{said}");
    let mut listens = lab.hosts[1]
        .command(&["receive", "--listen", &format!("{url}#{own}")])
        .map(|command| Process::start(command).unwrap())
        .unwrap();
    assert!(!listens.wait(TIMEOUT).unwrap().success());
    assert!(listens.output().contains("leave #KEY out of --listen"), "{}", listens.output());
}

/// Named, bound to the address, and bound to the host: the other one gets nothing.
#[test]
fn another_host_that_is_trusted_gets_nothing() {
    let Some(mut lab) = Lab::new("another trusted host") else { return };
    let [right, wrong] = [lab.key(1), lab.key(2)];
    let url = format!("tcp://{}", lab.at());
    let other = lab.hosts[2].receive(7000, &[]).unwrap();
    for bind in [None, Some("10.9.0.2"), Some("10.9.0.2:7000")] {
        let to = match bind {
            Some(at) => {
                lab.identity(0, &["trust", &right, "right", "--at", at]);
                url.clone()
            }
            None => format!("{url}#{right}"),
        };
        let said = lab.refused(&to, &[]);
        for part in ["another host answers there", &wrong, &right, "(host2)"] {
            assert!(said.contains(part), "no {part}: {said}");
        }
        other.wait_for_line("expects another host's at this address", TIMEOUT).unwrap();
    }
    drop(other);
    let there = lab.hosts[1].receive(7000, &[]).unwrap();
    let report = lab.hosts[0].migrate("d", &url).unwrap();
    assert_eq!(report["destination_key"], right, "{report}");
    assert!(lab.vm.wait(TIMEOUT).unwrap().success());
    there.wait_for_line("passes=", TIMEOUT).unwrap();
    let listed: Value = serde_json::from_str(&lab.identity(0, &["list", "--json"])).unwrap();
    let host = listed.as_array().unwrap().iter().find(|host| host["key"] == *right).unwrap();
    assert_eq!(host["at"], serde_json::json!(["10.9.0.2:7000"]), "{listed}");
    // Bound elsewhere it is not expected here; unbound it is one of two candidates.
    lab.identity(0, &["trust", &right, "--at", "hostb.example"]);
    lab.identity(0, &["trust", &wrong, "--at", "10.9.0.9"]);
    let list = lab.identity(0, &["list"]);
    assert!(list.contains("hostb.example") && list.contains("10.9.0.9"), "{list}");
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
    lab.vm = lab.hosts[0].run(&image("dirtier").unwrap(), &args).unwrap();
    lab.vm.wait_for_line("passes=", TIMEOUT).unwrap();
    let said = lab.refused(&url, &[]);
    assert!(said.contains("no trusted host is expected at 10.9.0.2:7000"), "{said}");
    lab.identity(0, &["trust", &right, "--anywhere"]);
    let _there = there;
    let said = lab.refused("tcp://10.9.0.2:7099", &[]);
    assert!(said.contains("cannot reach"), "the one that is bound to no address is tried: {said}");
}

#[test]
fn trust_on_first_use_binds_an_address_once() {
    let Some(mut lab) = Lab::new("first use") else { return };
    let url = format!("tcp://{}", lab.at());
    let first = ["--trust-on-first-use"];
    // A failed move binds nothing.
    lab.refused(&url, &first);
    let there = lab.hosts[2].receive(7000, &[]).unwrap();
    let args = [&["migrate", "d", &url, "--json"][..], &first].concat();
    let report = lab.hosts[0].json(&args).unwrap();
    assert_eq!(report["destination_key"], lab.key(2), "{report}");
    let listed: Value = serde_json::from_str(&lab.identity(0, &["list", "--json"])).unwrap();
    let at: Vec<&Value> = listed.as_array().unwrap().iter().map(|host| &host["at"]).collect();
    let bound = at.iter().filter(|at| **at == &serde_json::json!(["10.9.0.2:7000"])).count();
    assert_eq!((at.len(), bound), (2, 1), "{listed}");
    drop(there);
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
    lab.vm = lab.hosts[0].run(&image("dirtier").unwrap(), &args).unwrap();
    lab.vm.wait_for_line("passes=", TIMEOUT).unwrap();
    let _other = lab.hosts[1].receive(7000, &[]).unwrap();
    let said = lab.refused(&url, &first);
    assert!(said.contains("another host answers there"), "{said}");
}
