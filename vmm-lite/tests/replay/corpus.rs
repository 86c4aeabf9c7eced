//! Journals that are kept with the tests: what was recorded once is replayed by every later build,
//! on the model of CPU that recorded it.

use std::process::Command;
use testkit::guest::{kvm, test_name};
use vmm_lite_lab::skipped;

#[test]
fn journals_of_earlier_builds_are_replayed() {
    if !kvm() {
        return;
    }
    let mut replayed = 0;
    for journal in std::fs::read_dir("tests/golden/journals").unwrap() {
        let journal = journal.unwrap().path();
        let mut replay = Command::new(env!("CARGO_BIN_EXE_vmm-lite"));
        let out = replay.arg("replay").arg(&journal).args(["--verify", "--json"]).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        if said.contains("was made on another model of CPU") {
            skipped(&test_name(), said.trim());
            continue;
        }
        let report = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "{}: {report}{said}", journal.display());
        replayed += 1;
    }
    eprintln!("{replayed} journals");
}
