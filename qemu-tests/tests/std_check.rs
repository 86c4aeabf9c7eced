//! std behaves under QEMU as it does under vmm-lite.

mod common;

use common::{LIMIT, aloud, each_accel, image};
use qemu_harness::{BootParams, Config, Exit, Machine};

#[test]
fn std_check_passes() {
    each_accel("std-check", |accel| {
        let Some(image) = image("std-check", "std-check") else { return };
        let mut boot = BootParams::with_args(["--limit", "30"]);
        boot.ip = Some("10.0.0.2/24".into());
        let config = Config { boot, memory_mib: 128, ..Config::new(image, accel) };
        let mut vm = Machine::start(&config).unwrap_or_else(|e| panic!("{e}"));
        let exit = vm.wait_exit(2 * LIMIT).unwrap_or_else(|e| panic!("{accel:?}: {e}"));
        let text = vm.console().text();
        let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("FAIL")).collect();
        assert!(failed.is_empty(), "{accel:?}: {failed:#?}");
        assert_eq!(exit, Exit::Code(0), "{accel:?}: {text}");
        let summary = text.lines().find(|line| line.starts_with("std-check: "));
        aloud(&format!("{accel:?}: {}", summary.expect("it sums up")));
    });
}
