//! Snapshot files made by older versions.

use super::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The golden file of this version of format and state. A new version has a new name; the files of
/// older ones stay as they are.
const NEWEST: &str = "whole-1.1-state-4-manifest-3.snap";

/// Makes that file.
#[test]
#[ignore = "makes files that are kept"]
fn make_the_newest_golden_file() {
    let vm = vm(2 << 20);
    counts_on(&vm);
    let (whole, _) = snapshot(&vm, None, ON_WRITE);
    std::io::copy(&mut at_start(whole), &mut File::create(golden(NEWEST)).unwrap()).unwrap();
}

fn at_start(mut file: File) -> File {
    use std::io::Seek;
    file.rewind().unwrap();
    file
}

#[test]
fn snapshots_of_older_versions_load() {
    let files = [
        ("whole-1.0.snap", 0),
        ("whole-1.1.snap", 1),
        ("whole-1.1-state-2.snap", 1),
        ("whole-1.1-state-3.snap", 1),
        ("whole-1.1-state-4.snap", 1),
        (NEWEST, 1),
    ];
    for (name, minor) in files {
        let open = || File::open(golden(name)).unwrap();
        let snapshot = load::open(open()).unwrap();
        snapshot.verify().unwrap();
        assert_eq!((snapshot.header().minor, snapshot.header().id), (minor, [7; 16]));
        assert_eq!(snapshot.header().notes.map(|n| n.pages_dont_care), (minor > 0).then_some(2));
        let guest = load::guest(&snapshot).unwrap();
        assert_eq!(
            (guest.manifest.identity.name.as_str(), guest.manifest.identity.memory_size),
            ("counts", 2 << 20)
        );
        assert!(guest.state.vcpus[0].regs.rip > 0x10_0000 && guest.state.clock.mono_ns > 0);
        if !kvm() {
            continue;
        }
        let version = guest.manifest.identity.interface_version;
        if version != INTERFACE_VERSION {
            // The file can be read; its guest needs an interface that the VMM no longer has.
            assert!(start::change(&mut guest.clone(), &start::Change::default()).is_err());
        } else if let Err(e) = guest.manifest.fits(&Host::open().unwrap().features().unwrap()) {
            vmm_lite_lab::skipped(name, e);
        } else {
            assert_eq!(run(open()), 5, "{name}");
        }
    }
    let difference = load::open(File::open(golden("difference-1.1.snap")).unwrap()).unwrap();
    difference.verify().unwrap();
    assert!(matches!(load::guest(&difference), Err(Error::Difference)));
    let base = load::open(File::open(golden("whole-1.1.snap")).unwrap()).unwrap();
    assert_eq!(difference.header().base, Some(base.header().as_base()));
}

#[test]
fn a_snapshot_of_another_major_version_is_refused() {
    let mut bytes = std::fs::read(golden("whole-1.1.snap")).unwrap();
    bytes[8..10].copy_from_slice(&(MAJOR + 1).to_le_bytes());
    let file = testkit::guest::TempFile::new(&bytes);
    let error = load::open(File::open(file.path()).unwrap()).unwrap_err();
    assert!(error.to_string().contains("format version 2, which this vmm-lite does not know"));
}
