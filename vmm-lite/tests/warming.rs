//! The destination runs a guest's own routine before the guest runs: whatever the routine is, that
//! ends.

use std::{
    sync::{atomic::Ordering::Relaxed, mpsc::channel},
    thread,
    time::{Duration, Instant},
};
use testkit::guest::{kvm, printed, start};
use vmm::{
    boot::{Image, Parameters},
    devices::console::Console,
    kvm::{Alarm, touch::RUNS},
    memory::PAGE,
    vm::{Config, Vm},
};
use vmm_lite_lab::{images::image, vmm::TIMEOUT};

const CUT: Duration = Duration::from_millis(50);

/// A guest that runs its program.
fn dirtier() -> Vm {
    let image = Image::open(&image("dirtier").unwrap()).unwrap();
    let parameters = Parameters { name: "test".into(), ..Default::default() };
    let config = Config { memory: 16 << 20, nets: vec![], parameters };
    let vm = Vm::boot(&config, &image, Console::new(None)).unwrap();
    start(&vm);
    let end = Instant::now() + TIMEOUT;
    while !printed(&vm).contains("nonce") {
        assert!(Instant::now() < end, "{}", printed(&vm));
        thread::yield_now();
    }
    vm
}

#[test]
fn a_routine_that_does_not_end_is_stopped() {
    if !kvm() {
        return;
    }
    let vm = dirtier();
    // Its report after the reclaim contains its system registers at CPL 3.
    vm.request_reclaim();
    vm.wait_reclaimed(TIMEOUT);
    let invariant =
        vm.invariant().expect("a guest that was asked to reclaim has reported its invariant state");
    drop(vm.pause().unwrap());
    let routine = vm.ram().control_page().touch_pages.load(Relaxed);
    let (tell, told) = channel();
    let toucher = vm.clone();
    thread::spawn(move || {
        let mut held = toucher.hold().unwrap();
        let _cut = Alarm::every(CUT);
        let mut runs = [(0, 0); RUNS];
        runs[0] = (routine / PAGE as u64 * PAGE as u64, 1);
        let right = held.touch(&invariant.system, routine, &runs);
        // A jump to itself.
        held.memory().write(routine, &[0xeb, 0xfe]).unwrap();
        let wrong = held.touch(&invariant.system, routine, &runs);
        tell.send((right.map_err(|e| e.to_string()), wrong.map_err(|e| e.to_string()))).unwrap();
    });
    let (right, wrong) = told.recv_timeout(TIMEOUT).expect("it is not cut short");
    assert_eq!(right, Ok(()));
    assert!(wrong.is_err(), "{wrong:?}");
}
