//! A VM with a journal: killed at any moment it goes on where it was, with its connections, and
//! nothing that it has answered is lost. Its runs are replayed.

use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};
use testkit::client::{Client, Talk};
use vmm_lite_lab::{
    images::image,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

/// A store with a journal, and a client of it.
struct Lab {
    _site: Site,
    vmm: Vmm,
    dir: tempfile::TempDir,
    vm: Process,
    client: Client,
}

/// A call outside of a thread's filter ends the process, and is named.
const CONFINED: [&str; 2] = ["--seccomp", "trap"];

impl Lab {
    fn new(test: &str, options: &[&str]) -> Option<Self> {
        let site = Site::for_test(test)?;
        let vmm = Vmm::on(&site.hosts[0]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let journal = dir.path().join("journal");
        let args = ["--name", "kv", "--memory", "32M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
        let own = ["--journal", journal.to_str().unwrap()];
        let args = [&args[..], &own, &CONFINED, options].concat();
        let vm = vmm.run(&image("kv").unwrap(), &args).unwrap();
        let client = Client::start(&site.client, Talk::Store { count: 0 });
        Some(Self { _site: site, vmm, dir, vm, client })
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn kill(&mut self) {
        self.vm.signal(Signal::SIGKILL).unwrap();
        let _ = self.vm.wait(TIMEOUT);
    }

    fn start(&self, args: &[&str]) -> Process {
        let journal = self.journal();
        let args = [args, &[journal.to_str().unwrap()]].concat();
        Process::start(self.vmm.command(&args).unwrap()).unwrap()
    }

    /// Goes on from the journal.
    fn restore(&mut self, options: &[&str]) {
        let args = [&["restore", "--tap", "tap0"], &CONFINED[..], options, &["--journal"]].concat();
        self.vm = self.start(&args);
    }

    /// Replays the journal: the report, which may be of a failure.
    fn replay(&self, options: &[&str]) -> Value {
        let mut replay = self.start(&[&["replay", "--verify", "--json"], options].concat());
        replay.wait(TIMEOUT).unwrap();
        let output = replay.output();
        let last = output.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|e| panic!("{e}: {output}"))
    }

    #[track_caller]
    fn is_the_same(&self, options: &[&str]) -> u64 {
        let report = self.replay(options);
        assert_eq!(report["same"], true, "{report}");
        report["position"].as_u64().unwrap()
    }
}

#[test]
fn a_vm_that_is_killed_goes_on_with_its_connections_and_all_it_answered() {
    let options = ["--snapshot-every", "150ms", "--keep", "2"];
    let Some(mut lab) = Lab::new("journal-kill", &options) else { return };
    for round in 0..6 {
        // At any moment: while it waits, while it answers, while a snapshot is made.
        std::thread::sleep(Duration::from_millis(40 + 60 * round));
        lab.kill();
        let before = lab.is_the_same(&[]);
        lab.restore(&options);
        lab.client.hears(&format!("killed {} times\n{}", round + 1, lab.vm.output()));
        lab.kill();
        assert!(lab.is_the_same(&[]) > before);
        lab.restore(&options);
        lab.client.hears(&format!("killed again\n{}", lab.vm.output()));
    }
    let bases = count(&lab.journal(), "snapshot-");
    assert!((1..=3).contains(&bases), "{bases} snapshots are kept");
}

#[test]
fn a_journal_that_is_not_synced_outlives_its_process() {
    for sync in ["never", "10ms"] {
        let Some(mut lab) = Lab::new(&format!("journal-{sync}"), &["--sync", sync]) else { return };
        for _ in 0..2 {
            lab.kill();
            lab.restore(&["--sync", sync]);
            lab.client.hears(sync);
        }
    }
}

#[test]
fn going_back_leaves_the_journal_as_it_is() {
    let Some(mut lab) = Lab::new("journal-back", &[]) else { return };
    lab.client.hears("it runs");
    lab.kill();
    let end = lab.is_the_same(&[]);
    let middle = (end / 2).to_string();
    assert_eq!(lab.is_the_same(&["--until", &middle]), end / 2);
    let before = files(&lab.journal());
    lab.restore(&["--until", &middle]);
    lab.vm.wait_for_line("nothing of what happens from now on", TIMEOUT).unwrap();
    lab.kill();
    assert_eq!(files(&lab.journal()), before);
    let refused = lab.replay_said(&["--until", "1960-01-01T00:00:00Z"]);
    assert!(refused.contains("a time"), "{refused}");
}

#[test]
fn what_it_sent_and_received_can_be_written_to_a_file() {
    let Some(mut lab) = Lab::new("journal-pcap", &[]) else { return };
    lab.client.hears("it runs");
    lab.kill();
    let file = lab.dir.path().join("kv.pcap");
    lab.is_the_same(&["--pcap", file.to_str().unwrap()]);
    let packets = fs::read(&file).unwrap();
    assert_eq!(packets[..4], [0x4d, 0x3c, 0xb2, 0xa1], "a capture with nanoseconds");
    let text = String::from_utf8_lossy(&packets);
    assert!(text.contains("INCR told") && text.contains(":2\r\n"), "requests and answers");
}

#[test]
fn damage_is_named_and_a_torn_end_is_cut() {
    let Some(mut lab) = Lab::new("journal-damage", &["--snapshot-every", "never"]) else { return };
    lab.client.hears("it runs");
    lab.kill();
    let end = lab.is_the_same(&[]);
    let segment = lab.journal().join(format!("log-{:020}", 1));
    let whole = fs::read(&segment).unwrap();
    // In the first batch, so what follows is there.
    let flipped = fs::OpenOptions::new().write(true).open(&segment).unwrap();
    flipped.write_all_at(&[whole[150] ^ 1], 150).unwrap();
    let said = lab.replay_said(&[]);
    assert!(said.contains("is damaged at offset"), "{said}");
    flipped.write_all_at(&whole, 0).unwrap();
    // Half of the log: an interrupted write.
    let used = whole.iter().rposition(|byte| *byte != 0).unwrap();
    flipped.set_len(used as u64 / 2).unwrap();
    let cut = lab.is_the_same(&[]);
    assert!(cut > 0 && cut < end, "{cut} of {end}");
}

#[test]
fn a_journal_is_written_by_one_process_and_never_over_another() {
    let Some(mut lab) = Lab::new("journal-locked", &[]) else { return };
    let args = ["restore", "--tap", "tap0", "--journal"];
    let mut second = lab.start(&args);
    assert!(!second.wait(TIMEOUT).unwrap().success());
    assert!(second.output().contains("is being written by another process"), "{}", second.output());
    lab.kill();
    let image = image("hello").unwrap();
    let mut third = lab.start(&["run", image.to_str().unwrap(), "--journal"]);
    assert!(!third.wait(TIMEOUT).unwrap().success());
    assert!(third.output().contains("is not empty"), "{}", third.output());
}

impl Lab {
    /// The output of a replay that fails.
    fn replay_said(&self, options: &[&str]) -> String {
        let mut replay = self.start(&[&["replay"], options].concat());
        assert!(!replay.wait(TIMEOUT).unwrap().success());
        replay.output()
    }
}

fn count(dir: &Path, prefix: &str) -> usize {
    let names = fs::read_dir(dir).unwrap();
    names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(prefix)).count()
}

/// Names and contents.
fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entry = |e: std::io::Result<fs::DirEntry>| {
        let path = e.unwrap().path();
        (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap())
    };
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(entry).collect();
    files.sort();
    files
}
