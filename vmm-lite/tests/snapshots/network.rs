//! Names and addresses of copies on the network.

use crate::lab::{KV, Lab};
use std::time::{Duration, Instant};
use testkit::net::Wire;
use vmm_lite_lab::vmm::TIMEOUT;

#[test]
fn no_copy_gets_the_address_of_a_running_vm_unless_requested() {
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
    // It counts with its present address.
    let kv3 = ["restore", &file, "--name", "kv3", "--tap", "tap2"];
    lab.site.hosts[0].tap("tap2").unwrap();
    let warned = lab.start(&[&kv3[..], &["--ip", "10.0.0.3/24"]].concat());
    warned.wait_for_line("kv2 runs here with the address 10.0.0.3 too", TIMEOUT).unwrap();
    lab.stop("kv2", address);
    drop(warned);
    let image = lab.image.to_str().unwrap();
    let run = ["run", image, "--name", "kv4", "--tap", "tap1", "--ip", "10.0.0.2/24"];
    let run = lab.start(&run);
    run.wait_for_line("kv runs here with the address 10.0.0.2 too", TIMEOUT).unwrap();
    drop(run);
    let kept = lab.start(&[&kv2[..], &["--keep-ip"]].concat());
    let deadline = Instant::now() + TIMEOUT;
    while lab.vmm.json(&["stats", "kv2", "--json"]).is_err() {
        assert!(Instant::now() < deadline, "{}", kept.output());
        std::thread::sleep(Duration::from_millis(10));
    }
    lab.stop("kv2", kept);
    lab.stop("kv", vm);
    // When that VM has ended, its address is free.
    let kv2 = lab.start(&kv2);
    lab.client(KV);
    lab.stop("kv2", kv2);
}

#[test]
fn a_restored_vm_is_announced_on_the_network() {
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
        // ARP, as a broadcast reply: guests send none.
        let told = |frame: &[u8]| {
            frame.len() >= 42
                && frame[..6] == [0xff; 6]
                && frame[12..14] == [8, 6]
                && frame[20..22] == [0, 2]
                && frame[28..32] == ip
                && frame[22..28] == frame[6..12]
        };
        let deadline = Instant::now() + TIMEOUT;
        while !wire.has(told) {
            assert!(Instant::now() < deadline, "{how:?}: {}", vm.output());
            std::thread::sleep(Duration::from_millis(5));
        }
        lab.stop("kv", vm);
    }
}

/// The VM may spoof addresses: hosts that do not allow this refuse it.
#[track_caller]
fn may_spoof(lab: &Lab, name: &str) {
    let there = lab.vmm.receive(7000, &["--plaintext", "--name", "spoofs", "--tap", "tap3"]);
    let said = lab.said(&["migrate", name, &lab.vmm.url(7000), "--plaintext"]);
    assert!(said.contains("`receive --allow-spoofing`"), "{name}: {said}");
    drop(there.unwrap());
}

/// It keeps that right, gets it in no other way, and a move does not cut it off silently.
#[test]
fn a_vm_that_may_spoof_says_so_on_every_host() {
    let Some(lab) = Lab::new("VMs that may spoof", "kv") else { return };
    (1..=3).for_each(|n| lab.site.hosts[0].tap(&format!("tap{n}")).unwrap());
    let url = lab.vmm.url(7001);
    let may = "--allow-spoofing";
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24", may];
    let vm = lab.vmm.run(&lab.image, &args).unwrap();
    may_spoof(&lab, "kv");
    let file = lab.file("kv.snap");
    lab.snapshot("kv", &file);
    let fork = ["fork", "kv", "--prefix", "fork", "--detach", "--json", "--tap", "tap1"];
    lab.json(&[&fork[..], &["--ip", "10.0.0.5/24", may]].concat());
    may_spoof(&lab, "fork-1");
    lab.json(&["stop", "fork-1", "--json"]);

    let args = ["--plaintext", "--name", "moved", "--tap", "tap1", may];
    let moved = lab.vmm.receive(7001, &args).unwrap();
    lab.json(&["migrate", "kv", &url, "--plaintext", "--json"]);
    drop(vm);
    may_spoof(&lab, "moved");
    lab.stop("moved", moved);

    let restore = ["restore", &file, "--name", "again", "--tap", "tap1"];
    let again = lab.start(&[&restore[..], &[may]].concat());
    lab.client(KV);
    may_spoof(&lab, "again");
    lab.stop("again", again);
    // A snapshot of such a VM does not grant that right.
    let again = lab.start(&restore);
    lab.client(KV);
    let there = lab.vmm.receive(7001, &["--plaintext", "--name", "there", "--tap", "tap2"]);
    lab.json(&["migrate", "again", &url, "--plaintext", "--json"]);
    lab.stop("there", there.unwrap());
    drop(again);
}
