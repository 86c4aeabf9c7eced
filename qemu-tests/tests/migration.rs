//! QEMU's own live migration of vmm-lite's guests: nothing is lost, and its cost is printed.

mod common;

use common::{GUEST_IP, LIMIT, aloud, connect, each_accel, image, networked, site, start_on};
use qemu_harness::dirtier::StatusPort;
use qemu_harness::migration::{Options, Report, migrate};
use qemu_harness::{Accel, Config, Machine, host, save};
use std::time::Duration;
use vmm_lite_lab::probe::Probe;
use vmm_lite_lab::redis;
use vmm_lite_lab::site::Site;

/// Moves the machine to the other host and back, `times` switches in total, calling `moved` after
/// each.
fn back_and_forth(
    site: &Site,
    config: &Config,
    first: Machine,
    quiesced: &[bool],
    mut moved: impl FnMut(Report),
) -> Machine {
    let incoming = Config { incoming: Some("defer".into()), ..config.clone() };
    let mut here = first;
    for (n, &quiesce) in (1u32..).zip(quiesced) {
        let host = &site.hosts[n as usize % 2];
        let mut there = start_on(host, &incoming);
        let options = Options {
            quiesce: quiesce.then_some(n),
            ..Options::new(format!("tcp:{}:{}", host.migration_ip, 7000 + n))
        };
        let report =
            migrate(&mut here, &mut there, &options).unwrap_or_else(|e| panic!("move {n}: {e}"));
        here.quit().unwrap();
        here = there;
        moved(report);
    }
    here
}

fn tell(name: &str, accel: Accel, report: &Report, seen: &str) {
    let Report { downtime_ms, total_ms, stop_to_resume_us, transferred, rounds, .. } = report;
    let quiesced = match (report.quiesce_us, report.quiescent_us) {
        (Some(answer), Some(all)) => format!("quiesced in {answer} us, for {all} us"),
        _ => "not quiesced".to_owned(),
    };
    aloud(&format!(
        "{name}, {accel:?}, {quiesced}: downtime {downtime_ms} ms, stop to resume \
         {stop_to_resume_us} us, \
         {seen}, total {total_ms} ms, {transferred} bytes, {rounds} rounds"
    ));
}

#[test]
fn dirtier_moves_intact() {
    each_accel("migration of dirtier", |accel| {
        const NAME: &str = "dirtier";
        let (Some(site), Some(image)) = (site(NAME), image(NAME, NAME)) else { return };
        let args = ["--pages", "256", "--port", "7000", "--quiet"];
        let config = Config { quiesce: true, ..networked(image, accel, &args) };
        aloud(&format!("{}: {}", host::qemu_version().unwrap(), config.arguments().join(" ")));
        let mut vm = start_on(&site.hosts[0], &config);
        vm.console().wait_for("status on port", LIMIT).unwrap();
        // One connection through all moves.
        let mut port = StatusPort::new(connect(&site.client, 7000));
        let mut last = port.reset().unwrap();
        let nonce = last.nonce.clone();
        let moves = [false, true, false, true];
        let vm = back_and_forth(&site, &config, vm, &moves, |report| {
            let now = port.status().unwrap();
            assert_eq!((&now.nonce, now.errors), (&nonce, 0), "memory did not arrive intact");
            assert!(now.passes > last.passes, "it does not continue: {now:?}");
            assert!(now.uptime_ns > last.uptime_ns, "the guest's clock went back: {now:?}");
            tell(NAME, accel, &report, &format!("guest saw {} us", now.max_gap_ns / 1000));
            last = port.reset().unwrap();
        });
        vm.quit().unwrap();
    });
}

#[test]
fn dirtier_is_saved_continues_and_is_restored() {
    each_accel("saves of dirtier", |accel| {
        const NAME: &str = "dirtier";
        let (Some(site), Some(image)) = (site(NAME), image(NAME, NAME)) else { return };
        let config = networked(image, accel, &["--pages", "256", "--port", "7000", "--quiet"]);
        let mut vm = start_on(&site.hosts[0], &config);
        let mut port = StatusPort::new(connect(&site.client, 7000));
        let before = port.reset().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("it is a file");
        for _ in 0..2 {
            let saved = save::to_file(&mut vm, &file, 1).unwrap();
            let now = port.status().unwrap();
            assert_eq!((&now.nonce, now.errors), (&before.nonce, 0));
            assert!(saved.stop_to_resume_us > 0 && saved.transferred > 256 * 4096, "{saved:?}");
        }
        vm.quit().unwrap();
        let incoming = Config { incoming: Some(save::source(&file).unwrap()), ..config.clone() };
        let mut vm = start_on(&site.hosts[0], &incoming);
        save::wait_running(&mut vm, LIMIT).unwrap();
        // The existing connection still works; this one is new.
        let mut port = StatusPort::new(connect(&site.client, 7000));
        let now = port.status().unwrap();
        assert_eq!((&now.nonce, now.errors), (&before.nonce, 0), "memory was not restored intact");
        assert!(now.passes > 0);
        vm.quit().unwrap();
        // A file of another kind is reported with QEMU's message.
        std::fs::write(&file, "nothing").unwrap();
        let refused =
            Machine::start_with(&incoming, site.hosts[0].ns.command("qemu-system-x86_64"))
                .and_then(|mut vm| save::wait_running(&mut vm, LIMIT))
                .unwrap_err();
        assert!(refused.to_string().contains("QEMU ended"), "{refused}");
    });
}

#[test]
fn kv_moves_under_load() {
    each_accel("migration of kv", |accel| {
        const NAME: &str = "kv";
        let (Some(site), Some(image)) = (site(NAME), image(NAME, NAME)) else { return };
        let config = Config { quiesce: true, ..networked(image, accel, &["--port", "6379"]) };
        let mut vm = start_on(&site.hosts[0], &config);
        vm.console().wait_for("6379", LIMIT).unwrap();
        let server = format!("{GUEST_IP}:6379").parse().unwrap();
        let cli = |args: &[&str]| redis::cli(&site.client, server, args).unwrap();
        let nonce = format!("{:?}", std::time::SystemTime::now());
        assert_eq!(cli(&["SET", "nonce", &nonce]), "OK");
        let probe =
            Probe::start(&site.client, server, "moves", Duration::from_micros(200)).unwrap();
        let vm = back_and_forth(&site, &config, vm, &[false, true, false, true], |report| {
            assert_eq!(cli(&["GET", "nonce"]), nonce, "memory did not arrive");
            tell(NAME, accel, &report, "under load");
        });
        let seen = probe.stop();
        assert!(seen.errors.is_empty(), "{:?}", seen.errors);
        assert_eq!(seen.reconnects, 0);
        assert_eq!(seen.counter, i64::try_from(seen.samples.len()).unwrap());
        assert_eq!(cli(&["GET", "moves"]), seen.counter.to_string());
        let worst = seen.samples.iter().map(|s| s.latency_ns).max().unwrap_or_default();
        aloud(&format!(
            "{NAME}, {accel:?}: {} increments, none lost, the client's worst wait {} us, {} \
             retransmissions",
            seen.counter,
            worst / 1000,
            seen.retransmissions
        ));
        vm.quit().unwrap();
    });
}
