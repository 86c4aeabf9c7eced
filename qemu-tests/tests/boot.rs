//! Images boot, receive their boot parameters, and end with their exit code.

mod common;

use common::{LIMIT, aloud, each_accel, image};
use qemu_harness::{Accel, BootParams, Config, Exit, Machine, host};

const GREETING: &str = "Hello from a Rust std program.";

/// Runs an image without a network to its end. Returns its output and how it ended.
fn run(app: &str, accel: Accel, boot: BootParams) -> Option<(String, Exit)> {
    let config = Config { boot, ..Config::new(image(app, app)?, accel) };
    let mut vm = Machine::start(&config).unwrap_or_else(|e| panic!("{e}"));
    let exit = vm.wait_exit(LIMIT).unwrap_or_else(|e| panic!("{e}"));
    Some((vm.console().text(), exit))
}

#[test]
fn hello_prints_and_ends_with_zero() {
    each_accel("hello", |accel| {
        let Some(image) = image("hello", "hello") else { return };
        let config = Config::new(image, accel);
        let mut vm = Machine::start(&config).unwrap_or_else(|e| panic!("{e}"));
        let exit = vm.wait_exit(LIMIT).unwrap_or_else(|e| panic!("{e}"));
        let text = vm.console().text();
        assert_eq!((text.trim_end(), exit), (GREETING, Exit::Code(0)), "{}", vm.messages());
        let first = vm.console().first_byte().expect("it printed");
        aloud(&format!(
            "{}, {accel:?}: {:.1} ms from exec to the first byte of hello\n  qemu-system-x86_64 {}",
            host::qemu_version().unwrap(),
            (first - vm.spawned()).as_secs_f64() * 1e3,
            config.arguments().join(" "),
        ));
    });
}

#[test]
fn arguments_environment_and_exit_code_get_through() {
    each_accel("hello --args", |accel| {
        let mut boot =
            BootParams::with_args(["--exit", "203", "--env", "--args", "a b", "", "100%", "ü"]);
        boot.env = vec![("SHAPE".into(), "round = 7".into())];
        let Some((text, exit)) = run("hello", accel, boot) else { return };
        let lines: Vec<&str> = text.lines().collect();
        for line in
            [GREETING, "env SHAPE=round = 7", "arg 0: a b", "arg 1: ", "arg 2: 100%", "arg 3: ü"]
        {
            assert!(lines.contains(&line), "{line:?} is not in {lines:?}");
        }
        assert_eq!(exit, Exit::Code(203));
    });
}

#[test]
fn what_is_typed_reaches_standard_input() {
    each_accel("hello --cat", |accel| {
        let Some(image) = image("hello --cat", "hello") else { return };
        let boot = BootParams::with_args(["--cat"]);
        let mut vm = Machine::start(&Config { boot, ..Config::new(image, accel) })
            .unwrap_or_else(|e| panic!("{e}"));
        vm.console().wait_for(GREETING, LIMIT).unwrap();
        for line in ["the first line\n", "and one more\n"] {
            vm.console().send(line.as_bytes()).unwrap();
            vm.console().wait_for(line.trim_end(), LIMIT).unwrap();
        }
        vm.quit().unwrap();
    });
}

#[test]
fn time_passes_in_a_guest_that_sleeps() {
    each_accel("hello --ticks", |accel| {
        let boot = BootParams::with_args(["--ticks", "1"]);
        let began = std::time::Instant::now();
        let Some((text, exit)) = run("hello", accel, boot) else { return };
        assert!(text.contains("tick 1") && exit == Exit::Code(0), "{exit:?}: {text}");
        // How much longer depends on the host's load, up to the limit of a run.
        let took = began.elapsed().as_secs_f64();
        assert!(took >= 1.0, "one second took {took:.1} s");
    });
}

#[test]
fn failures_are_reported_and_have_their_codes() {
    each_accel("std-check --die", |accel| {
        for (way, code, report) in [
            ("panic", 101, "asked to panic"),
            ("null", 139, "0x10"),
            ("overflow", 139, "stack"),
            ("illegal", 132, "illegal"),
            ("abort", 134, ""),
        ] {
            let boot = BootParams::with_args(["--die", way]);
            let Some((text, exit)) = run("std-check", accel, boot) else { return };
            assert_eq!(exit, Exit::Code(code), "--die {way} under {accel:?}: {text}");
            let lower = text.to_lowercase();
            assert!(
                lower.contains(report),
                "--die {way} under {accel:?}: {report:?} not in {text}"
            );
        }
    });
}
