//! The network device on a TAP in the test's own network namespace: packets both ways, and
//! everything that a driver can do wrong.

use proptest::prelude::*;
use std::{
    net::IpAddr,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use testkit::net::{Driver, MAC, QUEUE, Wire, buffer, frame, is_ours, namespace, no_fork, ring};
use vmm::{
    devices::{
        Violation,
        console::Console,
        device::Device,
        net::{
            Own,
            arp::announcements,
            tap::{self, Tap},
        },
    },
    vm::{Identity, NetIdentity, Vm},
};
use vmm_lite_interface::INTERFACE_VERSION;

const NEXT: u16 = 1;
const FOR_DEVICE_TO_WRITE: u16 = 2;
const HEADER: usize = 12;

#[test]
fn packets_go_both_ways() {
    if !namespace("vmmt0") {
        return;
    }
    let wire = Wire::on("vmmt0");
    let mut driver = Driver::new("vmmt0");
    assert_eq!((driver.read(0), driver.read(4), driver.read(8)), (0x7472_6976, 2, 1));
    driver.go().unwrap();
    assert_eq!(driver.half(ring(0).2) & 1, 1, "the driver need not notify");

    // Sends a frame in two parts, of which the second has no header.
    let out = frame(0xaa, 100);
    driver.ram.writable().write(buffer(1, 0) + HEADER as u64, &out[..50]).unwrap();
    driver.ram.writable().write(buffer(1, 1), &out[50..]).unwrap();
    driver.descriptor(1, 0, buffer(1, 0), 62, NEXT, 1);
    driver.descriptor(1, 1, buffer(1, 1), 50, 0, 0);
    driver.offer(1, 0);
    assert_eq!(driver.pass().unwrap().sent, 1);
    assert_eq!(driver.used(1), (1, 0));
    assert_eq!(wire.expect(is_ours), out);

    // Receives. Without a buffer the packet waits in the TAP.
    let incoming = frame(0xbb, 1514);
    wire.send(&incoming);
    let moved = driver.pass().unwrap();
    assert!(moved.received == 0 && moved.no_buffers);
    driver.descriptor(0, 3, buffer(0, 3), 100, FOR_DEVICE_TO_WRITE | NEXT, 4);
    driver.descriptor(0, 4, buffer(0, 4), 1600, FOR_DEVICE_TO_WRITE, 0);
    // The kernel's own packets (IPv6 and the like) arrive first.
    let got = loop {
        driver.offer(0, 3);
        driver.wait_for_packet();
        assert_eq!(driver.pass().unwrap().received, 1);
        let (_, len) = driver.used(0);
        let mut got = vec![0; len as usize];
        let first = got.len().min(100);
        driver.ram.read(buffer(0, 3), &mut got[..first]).unwrap();
        driver.ram.read(buffer(0, 4), &mut got[first..]).unwrap();
        if is_ours(got.get(HEADER..).unwrap_or_default()) {
            break got;
        }
    };
    assert_eq!(&got[HEADER..], &incoming);
    assert_eq!(&got[10..12], &[1, 0], "num_buffers");

    // Forwarded packets come before those that wait in the TAP.
    wire.send(&frame(2, 64));
    driver.wait_for_packet();
    let mut late = vec![0; HEADER];
    late.extend(frame(1, 64));
    assert!(driver.net.forwarded().push(late));
    driver.offer(0, 3);
    driver.pass().unwrap();
    let mut mark = [0];
    driver.ram.read(buffer(0, 3) + 40, &mut mark).unwrap();
    assert_eq!(mark, [1]);
}

#[test]
fn state_moves_to_another_device() {
    if !namespace("vmmt1") {
        return;
    }
    let mut source = Driver::new("vmmt1");
    source.go().unwrap();
    source.descriptor(1, 0, buffer(1, 0), 80, 0, 0);
    source.ram.writable().write(buffer(1, 0) + HEADER as u64, &frame(1, 68)).unwrap();
    source.offer(1, 0);
    source.pass().unwrap();
    let state = source.net.capture();
    let Driver { ram, net, tap } = source;
    let mut destination = {
        let _opened_once = no_fork();
        drop((net, tap));
        Driver::new("vmmt1")
    };
    destination.ram = ram;
    destination.net.apply(&state, destination.ram.writable()).unwrap();
    assert_eq!(destination.net.capture(), state);
    destination.offer(1, 0);
    assert_eq!(destination.pass().unwrap().sent, 1, "neither again nor not at all");
    assert_eq!(destination.used(1).0, 2);

    let before = destination.net.capture();
    let mut wrong = state.clone();
    wrong.transport.queues[0].used_ring = 1 << 40;
    assert!(destination.net.apply(&wrong, destination.ram.writable()).is_err());
    let mut wrong = state.clone();
    wrong.transport.driver_features |= 1 << 63;
    assert!(destination.net.apply(&wrong, destination.ram.writable()).is_err());
    let mut wrong = state.clone();
    wrong.transport.queues[1].size = 3;
    assert!(destination.net.apply(&wrong, destination.ram.writable()).is_err());
    assert_eq!(destination.net.capture(), before, "nothing is partly applied");
}

/// The error for a queue that `set_up` made, after descriptor 0 of it is offered.
fn broken(driver: &mut Driver, q: u64, set_up: impl Fn(&mut Driver)) -> String {
    // A device after reset, as for each new driver.
    driver.write(0x70, 0).unwrap();
    driver.ram.writable().write(0x10_0000, &vec![0; 0x6000]).unwrap();
    driver.go().unwrap();
    set_up(driver);
    driver.offer(q, 0);
    match driver.pass() {
        Err(Violation::Queue { queue, what, .. }) => format!("{queue}: {what}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_driver_that_breaks_a_rule_is_named() {
    if !namespace("vmmt2") {
        return;
    }
    let driver = &mut Driver::new("vmmt2");
    type Case = (u64, &'static str, fn(&mut Driver));
    let cases: [Case; 9] = [
        (1, "outside of memory", |d| d.descriptor(1, 0, 1 << 40, 100, 0, 0)),
        (1, "outside of memory", |d| d.descriptor(1, 0, buffer(1, 0), u32::MAX, 0, 0)),
        (1, "outside of memory", |d| d.descriptor(1, 0, u64::MAX - 10, 100, 0, 0)),
        (1, "loops", |d| {
            d.descriptor(1, 0, buffer(1, 0), 100, NEXT, 1);
            d.descriptor(1, 1, buffer(1, 0), 100, NEXT, 0);
        }),
        (1, "leaves the table", |d| d.descriptor(1, 0, buffer(1, 0), 100, NEXT, 999)),
        (1, "shorter than its header", |d| d.descriptor(1, 0, buffer(1, 0), 11, 0, 0)),
        (1, "is for the device to write", |d| {
            d.descriptor(1, 0, buffer(1, 0), 100, FOR_DEVICE_TO_WRITE, 0);
        }),
        (0, "is not for the device to write", |d| d.descriptor(0, 0, buffer(0, 0), 2000, 0, 0)),
        (0, "a buffer of 512 bytes, where a packet may need 1526", |d| {
            d.descriptor(0, 0, buffer(0, 0), 512, FOR_DEVICE_TO_WRITE, 0);
        }),
    ];
    for (q, expected, set_up) in cases {
        let what = broken(driver, q, set_up);
        assert!(what.contains(expected), "{what}");
    }
    let what = broken(driver, 1, |d| {
        d.ram.writable().write(ring(1).1 + 2, &999_u16.to_le_bytes()).unwrap()
    });
    assert!(what.starts_with("transmit: "), "{what}");
    let what = broken(driver, 1, |d| {
        d.ram.writable().write(ring(1).1 + 2, &1_u16.to_le_bytes()).unwrap();
        d.ram.writable().write(ring(1).1 + 4, &77_u16.to_le_bytes()).unwrap();
    });
    assert!(what.starts_with("transmit: "), "{what}");
}

#[test]
fn registers_refuse_invalid_accesses() {
    if !namespace("vmmt3") {
        return;
    }
    let driver = &mut Driver::new("vmmt3");
    let violation = |r: Result<(), Violation>| r.unwrap_err().to_string();
    let net = &mut driver.net;
    let ram = driver.ram.writable();
    assert!(violation(net.write(0x70, &[1], ram)).contains("1 bytes"));
    assert!(violation(net.write(0x70, &[1; 8], ram)).contains("8 bytes"));
    assert!(violation(net.write(0x00, &[1; 4], ram)).contains("cannot be written"));
    assert!(violation(net.write(0x100, &[1; 4], ram)).contains("read-only"));
    assert!(violation(net.read(0x02, &mut [0; 4])).contains("register 0x2"));
    assert!(violation(net.read(0x04, &mut [0; 2])).contains("2 bytes"));
    let mut config = [0; 8];
    net.read(0x100, &mut config).unwrap();
    assert_eq!((&config[..6], config[6]), (&MAC[..], 1), "address, and the link is up");
    net.read(0x1fe, &mut config).unwrap();
    assert_eq!(config, [0; 8], "past the end of the configuration");

    driver.write(0x30, 7).unwrap();
    assert_eq!(driver.read(0x34), 0, "a queue that does not exist has no descriptors");
    assert!(violation(driver.write(0x38, 8)).contains("queue 7, which does not exist"));
    driver.write(0x30, 0).unwrap();
    for size in [0, 3, 257, 65_536] {
        assert!(violation(driver.write(0x38, size)).contains("descriptors cannot be"), "{size}");
    }
    let (desc, avail, used) = ring(0);
    for parts in [(1 << 40, avail, used), (desc, 4 << 20, used), (desc, avail, !0xfff)] {
        driver.write(0x70, 0).unwrap();
        driver.agree(1 << 5).unwrap();
        let what = violation(driver.set_up_queue(0, 8, parts));
        assert!(what.contains("do not all lie in memory"), "{what}");
    }
    driver.write(0x70, 0).unwrap();
    driver.go().unwrap();
    driver.write(0x30, 0).unwrap();
    assert!(violation(driver.write(0x80, 0)).contains("while it was live"));
    assert!(violation(driver.write(0x20, 0)).contains("after they were agreed on"));

    // Features that are not offered, or without VERSION_1, are not accepted.
    driver.write(0x70, 0).unwrap();
    driver.agree(1 << 31).unwrap();
    assert_eq!(driver.read(0x70) & 8, 0);
}

#[test]
fn a_vm_that_may_be_elsewhere_is_not_announced_here() {
    if !namespace("vmmt4") || !testkit::guest::kvm() {
        return;
    }
    let wire = Wire::on("vmmt4");
    let ip = "10.0.0.2/24".parse().unwrap();
    let identity = Identity {
        name: "a".into(),
        memory_size: 2 << 20,
        interface_version: INTERFACE_VERSION,
        nets: vec![NetIdentity { mac: MAC, ip: Some(ip) }],
        own_clock: Default::default(),
    };
    let vm = Vm::prepare(identity, Some("vmmt4"), Console::new(None)).unwrap();
    assert!(!vm.may_spoof(), "spoofing is off by default");
    let mut held = vm.hold().unwrap();
    held.warm_up().unwrap();
    let from_it = |frame: &[u8]| frame.get(6..12) == Some(&MAC);
    held.fence(true);
    vm.announce().unwrap();
    held.fence(false);
    vm.announce().unwrap();
    let all = announcements(MAC, Some(ip.address));
    for said in &all {
        assert!(said.ends_with(&wire.expect(from_it)));
    }
    assert!(!wire.has(from_it), "it was announced once");
}

#[test]
fn packets_from_addresses_of_others_are_dropped_and_counted() {
    if !namespace("vmmt5") {
        return;
    }
    let ip: IpAddr = "10.0.0.2".parse().unwrap();
    let wire = Wire::on("vmmt5");
    let mut driver = Driver::new("vmmt5");
    driver.go().unwrap();
    let mut send = |own: Option<Own>, packet: &[u8], split: u64| {
        driver.net.restrict_to(own);
        let len = packet.len() as u64;
        driver.ram.writable().write(buffer(1, 0), packet).unwrap();
        // In two parts, split at every position.
        driver.descriptor(1, 0, buffer(1, 0), split as u32, NEXT, 1);
        driver.descriptor(1, 1, buffer(1, 0) + split, (len - split) as u32, 0, 0);
        let before = driver.net.counters().tx_spoofed.load(SeqCst);
        driver.offer(1, 0);
        assert_eq!(driver.pass().unwrap().sent, 1, "the guest gets its buffers back");
        driver.net.counters().tx_spoofed.load(SeqCst) - before
    };
    let own = Some(Own::new(MAC, Some(ip)));
    let from = |mac: [u8; 6]| move |frame: &[u8]| frame.get(6..12) == Some(&mac);
    let other = [2, 0, 0, 0, 0, 0x77];
    for split in [1, 12, 13, 20, 26, 40, 53, 54, 60] {
        for packet in announcements(MAC, Some(ip)) {
            assert_eq!(send(own, &packet, split), 0, "{split}");
            assert_eq!(wire.expect(from(MAC)), packet[HEADER..]);
        }
        let forged = announcements(MAC, Some("10.0.0.3".parse().unwrap()));
        for packet in announcements(other, Some(ip)).iter().chain(&forged) {
            assert_eq!(send(own, packet, split), 1, "{split}");
        }
        assert!(!wire.has(|frame| from(MAC)(frame) || from(other)(frame)), "{split}");
    }
    // Unless that is allowed.
    let packet = announcements(other, Some(ip)).remove(0);
    assert_eq!(send(None, &packet, 20), 0);
    assert_eq!(wire.expect(from(other)), packet[HEADER..]);
}

#[test]
fn tap_devices_report_what_is_wrong() {
    if !namespace("vmmt4") {
        return;
    }
    let first = Tap::open("vmmt4").unwrap();
    let error = Tap::open("vmmt4").unwrap_err();
    assert!(matches!(error, tap::Error::Busy(_)), "{error}");
    assert!(error.to_string().contains("another process, maybe another VM"), "{error}");
    let tap = {
        let _opened_once = no_fork();
        drop(first);
        Tap::open("vmmt4").unwrap()
    };
    assert_eq!(tap.mtu_and_up().unwrap(), (1500, true));
    let wire = Wire::on("vmmt4");
    for frame in announcements(MAC, Some("10.0.0.2".parse().unwrap())) {
        assert!(tap.write(&frame).unwrap());
        let seen = wire.expect(|f| f.get(12..14) == Some(&[8, 6]));
        assert_eq!(&seen[..], &frame[HEADER..]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None,
        ..Default::default() })]

    /// Whatever the queues contain, the device either works or names what is wrong; it neither
    /// panics nor hangs nor writes elsewhere.
    #[test]
    fn no_queue_makes_the_device_panic_hang_or_write_elsewhere(
        descriptors in prop::collection::vec(
            (prop_oneof![0_u64..0x50_0000, any::<u64>()], prop_oneof![0_u32..0x5000, any::<u32>()],
                0_u16..8, 0_u16..10),
            usize::from(QUEUE),
        ),
        heads in prop::collection::vec(prop_oneof![0..QUEUE, any::<u16>()], 1..12),
        index in prop_oneof![0_u16..12, any::<u16>()],
        q in 0_u64..2,
    ) {
        thread_local! {
            static DRIVER: std::cell::RefCell<Option<Driver>> =
                std::cell::RefCell::new(namespace("vmmt5").then(|| Driver::new("vmmt5")));
        }
        let started = Instant::now();
        DRIVER.with_borrow_mut(|driver| {
            let Some(driver) = driver else { return };
            driver.write(0x70, 0).unwrap();
            driver.ram.writable().write(0x10_0000, &vec![0; 0x6000]).unwrap();
            driver.go().unwrap();
            for (n, &(address, len, flags, next)) in descriptors.iter().enumerate() {
                driver.descriptor(q, n as u16, address, len, flags, next);
            }
            for (n, head) in heads.iter().take(QUEUE.into()).enumerate() {
                let entry = ring(q).1 + 4 + n as u64 * 2;
                driver.ram.writable().write(entry, &head.to_le_bytes()).unwrap();
            }
            driver.ram.writable().write(ring(q).1 + 2, &index.to_le_bytes()).unwrap();
            let _ = driver.pass();
        });
        prop_assert!(started.elapsed() < Duration::from_secs(60));
    }
}
