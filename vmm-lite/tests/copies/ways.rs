//! Every way of copying a running VM.

use super::*;

#[test]
fn every_way_of_copying_copies_one_instant() {
    if !kvm() {
        return;
    }
    let vm = vm(2 << 20);
    for _ in 0..5 {
        let ways = [
            (ON_WRITE, Mode::CopyOnWrite),
            (ROUNDS, Mode::Rounds),
            // It writes to a few pages only.
            (AS_IT_GOES, Mode::Rounds),
        ];
        for (way, mode) in ways {
            counts_on(&vm);
            let (file, copied) = snapshot(&vm, None, way);
            if Userfault::open(vm.ram()).is_ok() {
                assert_eq!(copied.mode, mode);
            }
            assert!(copied.quiescent && copied.phases.is_some());
            counts_on(&vm);
            assert_eq!(run(file), 5);
        }
    }
    // A paused VM is copied as it is, and stays paused.
    vm.quiesce(TIMEOUT).unwrap().hold_for_operator().unwrap();
    let (file, copied) = snapshot(&vm, None, AS_IT_GOES);
    assert_eq!((copied.mode, copied.phases), (Mode::Paused, None));
    assert_eq!(run(file), 5);
    assert!(matches!(vm.phase(), VmPhase::Paused), "{:?}", vm.phase());
    let mut waits = |what: &str| panic!("it waits for {what}");
    vm.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    counts_on(&vm);
    // And a VM that must stay paused afterwards.
    let (file, _) = snapshot(&vm, None, |vm, sink| {
        capture::copy(vm, whole(vm), true, capture::Way::Auto, sink, &mut |_| true)
    });
    assert_eq!(run(file), 5);
    assert!(matches!(vm.phase(), VmPhase::Paused), "{:?}", vm.phase());
    vm.resume_for_operator(&mut Slow::new(&mut waits)).unwrap();
    counts_on(&vm);
}

#[test]
fn memory_that_is_protected_before_the_pause_is_copied_as_it_is_in_it() {
    if !kvm() {
        return;
    }
    let vm = vm(64 << 20);
    // More pages than are protected in the pause itself.
    let paused = vm.pause().unwrap();
    for page in 4000..vm.ram().pages() {
        paused.memory().write_page(page, &[page as u8 | 1; PAGE]).unwrap();
    }
    paused.resume_here().unwrap();
    for _ in 0..3 {
        counts_on(&vm);
        let (file, _) = snapshot(&vm, None, ON_WRITE);
        let reader = load::open(file.try_clone().unwrap()).unwrap();
        let mut right = 0;
        reader
            .each(|page, _, content| {
                right += usize::from(page >= 4000 && *content == [page as u8 | 1; PAGE]);
                Ok::<_, migrate::snapshot::Error>(())
            })
            .unwrap();
        assert_eq!(right, vm.ram().pages() - 4000);
        assert_eq!(run(file), 5);
    }
}

#[test]
fn a_cancelled_copy_leaves_the_vm_unchanged() {
    if !kvm() {
        return;
    }
    struct Full;
    impl Sink for Full {
        fn pages(&mut self, _: &[capture::Page]) -> std::io::Result<()> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
    }
    let vm = vm(2 << 20);
    let mut wanted = |_| true;
    for _ in 0..3 {
        for (stay, way) in [
            (false, capture::Way::Auto),
            (true, capture::Way::Auto),
            (false, capture::Way::Rounds),
            (false, capture::Way::CopyOnWrite),
        ] {
            let copied = capture::copy(&vm, whole(&vm), stay, way, &mut Full, &mut wanted);
            assert!(
                matches!(copied, Err(capture::Error::Sink(_) | capture::Error::Userfault(_))),
                "{copied:?}"
            );
            counts_on(&vm);
        }
    }
    let (file, _) = snapshot(&vm, None, ON_WRITE);
    assert_eq!(run(file), 5);
}
