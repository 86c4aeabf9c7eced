//! Who copies are on the network.

use crate::{
    lab::{KV, Lab},
    net::Wire,
};
use std::time::{Duration, Instant};
use vmm_lite_lab::vmm::PATIENCE;

#[test]
fn no_copy_gets_the_address_of_a_vm_that_runs_unless_it_is_asked_for() {
    let Some(lab) = Lab::new("addresses of copies", "kv") else { return };
    let vm = lab.kv();
    lab.client(KV);
    let file = lab.file("kv.snap");
    lab.snapshot("kv", &file);
    let kv2 = ["restore", &file, "--name", "kv2", "--tap", "tap1"];
    lab.site.hosts[0].tap("tap1").unwrap();
    for how in [&[][..], &["--lazy"]] {
        let said = lab.said(&[&kv2, how].concat());
        assert!(said.contains("kv runs here with the address 10.0.0.2"), "{said}");
        assert!(said.contains("--ip") && said.contains("--keep-ip"), "{said}");
    }
    // Another address, the same one on purpose, and the same one by hand.
    let address = lab.start(&[&kv2[..], &["--ip", "10.0.0.3/24"]].concat());
    lab.client("10.0.0.3:6379");
    assert!(!address.output().contains("warning"), "{}", address.output());
    // It counts with the address that it has now.
    let kv3 = ["restore", &file, "--name", "kv3", "--tap", "tap2"];
    lab.site.hosts[0].tap("tap2").unwrap();
    let warned = lab.start(&[&kv3[..], &["--ip", "10.0.0.3/24"]].concat());
    warned.wait_for_line("kv2 runs here with the address 10.0.0.3 too", PATIENCE).unwrap();
    lab.stop("kv2", address);
    drop(warned);
    let image = lab.image.to_str().unwrap();
    let run = ["run", image, "--name", "kv4", "--tap", "tap1", "--ip", "10.0.0.2/24"];
    let run = lab.start(&run);
    run.wait_for_line("kv runs here with the address 10.0.0.2 too", PATIENCE).unwrap();
    drop(run);
    let kept = lab.start(&[&kv2[..], &["--keep-ip"]].concat());
    let deadline = Instant::now() + PATIENCE;
    while lab.vmm.json(&["stats", "kv2", "--json"]).is_err() {
        assert!(Instant::now() < deadline, "{}", kept.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    lab.stop("kv2", kept);
    lab.stop("kv", vm);
    // When that VM is gone, its address is free.
    let kv2 = lab.start(&kv2);
    lab.client(KV);
    lab.stop("kv2", kv2);
}

#[test]
fn the_network_is_told_of_a_vm_that_is_restored() {
    let Some(lab) = Lab::new("announcing a restored VM", "kv") else { return };
    let vm = lab.kv();
    lab.client(KV);
    let file = lab.file("kv.snap");
    lab.json(&["snapshot", "kv", &file, "--stop", "--json"]);
    drop(vm);
    for (how, ip) in [
        (&[][..], [10, 0, 0, 2]),
        (&["--lazy"], [10, 0, 0, 2]),
        (&["--ip", "10.0.0.9/24"], [10, 0, 0, 9]),
        (&["--ip", "10.0.0.9/24", "--lazy"], [10, 0, 0, 9]),
    ] {
        let wire = lab.site.client.enter(|| Wire::on("eth0")).unwrap();
        let vm = lab.start(&[&["restore", &file, "--tap", "tap0"], how].concat());
        // ARP, as a reply to everybody: guests send none.
        let told = |frame: &[u8]| {
            frame.len() >= 42
                && frame[..6] == [0xff; 6]
                && frame[12..14] == [8, 6]
                && frame[20..22] == [0, 2]
                && frame[28..32] == ip
                && frame[22..28] == frame[6..12]
        };
        let deadline = Instant::now() + PATIENCE;
        while !wire.has(told) {
            assert!(Instant::now() < deadline, "{how:?}: {}", vm.output());
            std::thread::sleep(Duration::from_millis(5));
        }
        lab.stop("kv", vm);
    }
}
