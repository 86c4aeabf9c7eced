//! Tests the driver itself with a guest of a hundred instructions, which needs neither the kernel
//! nor its toolchain.

mod common;
mod toy;

use common::{each_accel, has, site, start_on};
use qemu_harness::machine::PROGRAM;
use qemu_harness::migration::{Options, migrate};
use qemu_harness::{Accel, Config, Error, Exit, Machine, Net};
use std::time::Duration;
use vmm_lite_interface::control::ResumeReason;

const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn console_and_exit_code() {
    each_accel("console_and_exit_code", |accel| {
        let dir = tempfile::tempdir().unwrap();
        let mut vm = Machine::start(&toy::config(dir.path(), accel)).unwrap();
        vm.console().wait_for("toy\n", LIMIT).unwrap();
        // isa-debug-exit alone would lose codes above 127.
        vm.console().send(&[12]).unwrap();
        assert_eq!(vm.wait_exit(LIMIT).unwrap(), Exit::Code(12), "{}", vm.messages());

        let mut vm = Machine::start(&toy::config(dir.path(), accel)).unwrap();
        vm.console().wait_for("toy\n", LIMIT).unwrap();
        vm.console().send(&[139]).unwrap();
        assert_eq!(vm.wait_exit(LIMIT).unwrap(), Exit::Code(139), "{}", vm.messages());
    });
}

#[test]
fn a_guest_without_an_exit_code_has_none() {
    each_accel("a_guest_without_an_exit_code_has_none", |accel| {
        let dir = tempfile::tempdir().unwrap();
        let vm = Machine::start(&toy::config(dir.path(), accel)).unwrap();
        let id = vm.id();
        vm.quit().unwrap();
        assert!(!std::path::Path::new(&format!("/proc/{id}")).exists(), "QEMU is gone");

        let mut vm = Machine::start(&toy::config(dir.path(), accel)).unwrap();
        vm.console().wait_for("toy\n", LIMIT).unwrap();
        vm.console().send(&[toy::TRIPLE_FAULT]).unwrap();
        assert!(matches!(vm.wait_exit(LIMIT).unwrap(), Exit::NoCode(_)));
    });
}

#[test]
fn a_refused_image_is_reported_with_qemus_message() {
    if !has("a refused image", Accel::Tcg) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("text");
    std::fs::write(&image, "this is no image").unwrap();
    let error = Machine::start(&Config::new(&image, Accel::Tcg)).unwrap_err();
    match &error {
        Error::Ended { messages, .. } => {
            assert!(messages.contains("invalid kernel header"), "{messages}")
        }
        _ => panic!("{error}"),
    }
}

#[test]
fn a_tap_device_is_found_in_the_namespace_of_the_machine() {
    if !has("a TAP device", Accel::Tcg) {
        return;
    }
    let Some(site) = site("a TAP device") else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut config = toy::config(dir.path(), Accel::Tcg);
    config.net = Some(Net { tap: "tap0".into(), mac: "52:54:00:00:00:09".into() });
    let mut vm = start_on(&site.hosts[0], &config);
    vm.console().wait_for("toy\n", LIMIT).unwrap();
    // The same device again: busy.
    let second = || Machine::start_with(&config, site.hosts[0].ns.command(PROGRAM)).unwrap_err();
    assert!(second().to_string().contains("tap0"), "{}", second());
    vm.quit().unwrap();
}

#[test]
fn a_quiescent_guest_moves_and_continues() {
    each_accel("a_quiescent_guest_moves_and_goes_on", |accel| {
        let dir = tempfile::tempdir().unwrap();
        let config = toy::config(dir.path(), accel);
        let mut source = Machine::start(&config).unwrap();
        source.console().wait_for("toy\n", LIMIT).unwrap();
        let uart = source.quiesce().unwrap();
        uart.quiesce(1, LIMIT).unwrap();
        uart.resume(1, ResumeReason::Resumed, LIMIT).unwrap();

        let mut destination =
            Machine::start(&Config { incoming: Some("defer".into()), ..config }).unwrap();
        let uri = format!("unix:{}", dir.path().join("move").display());
        let options = Options { quiesce: Some(2), ..Options::new(uri) };
        let report = migrate(&mut source, &mut destination, &options).unwrap();
        common::aloud(&format!("{accel:?}: {report:?}"));
        assert!(report.pages > 0 && report.transferred > 4096 && report.quiescent_us.is_some());
        // The toy's memory arrived: it has seen both numbers.
        destination.console().send(&[toy::TELL]).unwrap();
        destination.console().wait_for("seen 12\n", LIMIT).unwrap();
        destination.console().send(&[7]).unwrap();
        assert_eq!(destination.wait_exit(LIMIT).unwrap(), Exit::Code(7));
        source.quit().unwrap();
    });
}

#[test]
fn a_failed_move_leaves_the_guest_running_at_the_source() {
    if !has("a failed move", Accel::Tcg) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let config = toy::config(dir.path(), Accel::Tcg);
    let mut source = Machine::start(&config).unwrap();
    source.console().wait_for("toy\n", LIMIT).unwrap();
    // Another memory size: QEMU's destination refuses, and ends.
    let other = Config { incoming: Some("defer".into()), memory_mib: 64, ..config };
    let mut destination = Machine::start(&other).unwrap();
    let uri = format!("unix:{}", dir.path().join("move").display());
    let options = Options { quiesce: Some(5), ..Options::new(uri) };
    let error = migrate(&mut source, &mut destination, &options).unwrap_err();
    // Either may be noticed first: that the move failed, or that the destination has ended.
    assert!(matches!(error, Error::Migration { .. } | Error::Ended { .. }), "{error}");
    source.quiesce().unwrap().quiesce(6, LIMIT).unwrap();
    source.quiesce().unwrap().resume(6, ResumeReason::Resumed, LIMIT).unwrap();
}
