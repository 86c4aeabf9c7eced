//! What a program reads of the CPU by itself is known wherever the VM is.

use super::*;
use testkit::guest::Elf;
use vmm::{
    boot::{Image, OwnClock, Parameters},
    vm::Config,
};

const LINES: &str = "kv::now+0x12: rdtsc\nkv::seed+0x4: rdrand\n";

#[test]
fn own_clock_readings_are_known_after_snapshot_restore_and_clone() {
    let known = OwnClock {
        count: Some(3),
        first: vec!["kv::now+0x12: rdtsc".into(), "kv::seed+0x4: rdrand".into()],
    };
    // Loops for ever.
    let code = [0xeb, 0xfe];
    for (note, expected) in [
        (Some((3, LINES)), known),
        (Some((0, "")), OwnClock { count: Some(0), first: vec![] }),
        (None, OwnClock::default()),
    ] {
        let file = Elf { own_clock: note, ..Elf::of(&code) }.file();
        let image = Image::open(file.path()).unwrap();
        assert_eq!(image.own_clock(), &expected);
        assert_eq!(image.own_clock().is_none(), note == Some((0, "")));
        if !kvm() {
            continue;
        }
        let parameters = Parameters { name: "test".into(), ..Default::default() };
        let config = Config { memory: 2 << 20, nets: vec![], parameters };
        let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
        testkit::guest::start(&vm);
        let (file, copied) = snapshot(&vm, None, ROUNDS);
        let saved = load::guest(&load::open(file).unwrap()).unwrap();
        assert_eq!(saved.manifest.identity.own_clock, expected);
        let restored = Vm::prepare(saved.manifest.identity.clone(), None, Console::new(None));
        let manifest = VmManifest::of(&restored.unwrap());
        assert_eq!(manifest.identity.own_clock, expected);
        let clone = SavedVm { manifest, state: copied.state };
        assert_eq!(SavedVm::from_bytes(&clone.to_bytes()).unwrap(), clone);
    }
}
