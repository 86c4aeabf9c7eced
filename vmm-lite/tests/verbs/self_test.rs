//! A host whose KVM cannot run VMs accepts no VM that has something to lose. A fresh VM is not
//! tested for, as that costs its start half a millisecond.
#![cfg(debug_assertions)]

use crate::{Host, Running, greets_and_obeys, kvm, odd_files::ends, text};
use std::process::Stdio;
use testkit::guest::Elf;
use vmm::fail_point::CHOICE;
use vmm_lite_lab::images;

#[test]
fn every_verb_that_takes_on_a_vm_refuses_where_the_self_test_of_kvm_fails() {
    if !kvm() {
        return;
    }
    let host = Host::new("self-test");
    let image = Elf::of(greets_and_obeys()).file();
    let (image, file) = (image.path().to_str().unwrap(), host.dir.join("vm.snap"));
    let file = file.to_str().unwrap();
    let mut vm = Running(
        host.command(&["run", image, "--name", "vm"])
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    assert_eq!(vm.first_line(), "hi!\n");
    host.json(&["snapshot", "vm", file, "--json"]);
    let [journal, hello] = [host.dir.join("journal"), images::image("hello").unwrap()];
    let [journal, hello] = [&journal, &hello].map(|path| path.to_str().unwrap());
    assert!(host.run(&["run", hello, "--journal", journal]).status.success());
    let listen = ["receive", "--listen", "tcp://127.0.0.1:0", "--plaintext"];
    let standby = ["standby", "--listen", "tcp://127.0.0.1:0", "--plaintext"];
    for args in [
        &["restore", file, "--name", "other"][..],
        &["restore", file, "--name", "other", "--lazy"],
        &["restore", file, "--name", "other", "--count", "2"],
        &["fork", "vm", "--prefix", "other"],
        &["restore", "--journal", journal],
        &listen,
        &[&standby[..], &["--arbiter", "file:/"]].concat(),
    ] {
        let mut command = host.command(args);
        command.env(CHOICE, "kvm.self-test=error");
        let out = ends(command);
        let said = text(&out.stderr);
        assert!(!out.status.success(), "{args:?}: {said}");
        assert!(said.contains("fails its self-test") && said.contains("code at CPL 3"), "{said}");
        assert_eq!(text(&out.stdout), "", "{args:?}: no guest ran");
        let left = host.json(&["ps", "--json"]);
        assert_eq!(left.as_array().unwrap().len(), 1, "{args:?}: {left}");
    }
    // The VM that was to be forked keeps running.
    assert_eq!(host.json(&["stats", "vm", "--json"])["state"], "running");
    host.json(&["stop", "vm", "--json"]);
}
