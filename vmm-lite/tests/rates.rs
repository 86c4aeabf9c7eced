//! Rate limits of the network and the console: nothing is faster, nothing is lost, no thread spins
//! meanwhile, and a verb never waits for a rate.
//!
//! The tests check only minimum times: a busy host may be arbitrarily slow.

use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroU64,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};
use testkit::net::{Driver, Wire, buffer, frame, is_ours, namespace};
use testkit::{
    control, guest,
    guest::{kvm, printed, start, vm},
};
use vmm::devices::{
    device::Device,
    rate::Rate,
    throttle::{NetRate, Rates},
};
use vmm_lite_interface::{
    doorbell::{Doorbell, PORT},
    layout::CONSOLE_OUT_SIZE,
};
use vmm_lite_lab::{
    images::image,
    net::Namespace,
    probe::Connection,
    process::Process,
    site::Site,
    vmm::{TIMEOUT, Vmm},
};

const FOR_DEVICE_TO_WRITE: u16 = 2;

fn rate(per_second: u64, burst: u64) -> Option<Rate> {
    let number = |n| NonZeroU64::new(n).unwrap();
    Some(Rate { per_second: number(per_second), burst: number(burst) })
}

/// One packet at once, and the next after a second: no pass has more than one.
fn one_packet() -> Rates {
    Rates { net: NetRate { bytes: None, packets: rate(1, 1) }, console: None }
}

#[test]
fn packets_over_the_rate_stay_in_the_guests_queue() {
    if !namespace("vmmr0") {
        return;
    }
    let wire = Wire::on("vmmr0");
    let mut driver = Driver::new("vmmr0");
    driver.go().unwrap();
    driver.net.limit(&one_packet());
    for n in 0..3 {
        let packet = [&[0; 12][..], &frame(n as u8, 60)].concat();
        driver.ram.writable().write(buffer(1, n), &packet).unwrap();
        driver.descriptor(1, n, buffer(1, n), packet.len() as u32, 0, 0);
        driver.offer(1, n);
    }
    let moved = driver.pass().unwrap();
    assert_eq!(moved.sent, 1);
    let wait = moved.send_wait.expect("the second waits");
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    assert!(!moved.more && !moved.blocked, "no poll is due before that");
    // Nor for a guest that reports to be quiescent.
    driver.net.flush(driver.ram.writable()).unwrap();
    assert_eq!(driver.used(1).0, 1);
    assert_eq!(driver.net.counters().tx_held.times(), 1, "one wait, however often it is polled");
    // They belong to the queue, and move with it.
    assert_eq!(driver.net.capture().transport.queues[1].next_avail, 1);
    driver.net.limit(&Rates::default());
    assert_eq!(driver.pass().unwrap().sent, 2);
    for n in 0..3 {
        assert_eq!(wire.expect(is_ours), frame(n, 60), "in their order");
    }
}

#[test]
fn packets_over_the_rate_stay_in_the_tap() {
    if !namespace("vmmr1") {
        return;
    }
    let wire = Wire::on("vmmr1");
    let mut driver = Driver::new("vmmr1");
    driver.go().unwrap();
    driver.tap.drain();
    driver.net.limit(&one_packet());
    for n in 0..4 {
        driver.descriptor(0, n, buffer(0, n), 1600, FOR_DEVICE_TO_WRITE, 0);
        driver.offer(0, n);
    }
    wire.send(&frame(1, 60));
    driver.wait_for_packet();
    wire.send(&frame(2, 60));
    // If that one is already there, which depends on the kernel, it is received first.
    let first = driver.pass().unwrap();
    assert_eq!(first.received, 1);
    driver.wait_for_packet();
    // For a second nothing may pass; after that, one packet.
    let moved = driver.pass().unwrap();
    assert!(moved.received <= 1, "{moved:?}");
    assert!(moved.receive_wait.is_some() || moved.received == 1, "{moved:?}");
    // A forwarded packet has already waited at the source.
    let late = driver.net.forwarded();
    for n in [8, 9] {
        assert!(late.push([&[0; 12][..], &frame(n, 60)].concat()));
    }
    assert_eq!(driver.pass().unwrap().received.min(2), 2);
    assert!(driver.net.counters().rx_held.times() >= 1);
    driver.net.limit(&Rates::default());
    let deadline = Instant::now() + TIMEOUT;
    while driver.used(0).0 < 4 {
        driver.pass().unwrap();
        assert!(Instant::now() < deadline, "the second frame is lost");
    }
}

/// Pieces that it prints, each filling the ring.
const PIECES: u32 = 8;

guest!(
    prints_rings_full,
    "mov edx, {port}",
    "mov ecx, {pieces}",
    "2: add dword ptr [{head}], {size}",
    "mov eax, {console}",
    "out dx, eax",
    "loop 2b",
    "mov eax, {exit}",
    "out dx, eax",
    "hlt",
    port = const PORT as u32,
    pieces = const PIECES,
    head = const control!(console_out.head),
    size = const CONSOLE_OUT_SIZE,
    console = const Doorbell::CONSOLE.0,
    exit = const Doorbell::EXIT.0,
);

#[test]
fn a_guest_prints_no_faster_than_its_rate_and_loses_nothing() {
    if !kvm() {
        return;
    }
    const RATE: u64 = 100_000;
    let burst = u64::from(CONSOLE_OUT_SIZE) / 2;
    let vm = vm(prints_rings_full());
    let rates = Rates { console: rate(RATE, burst), ..Rates::default() };
    vm.hold().unwrap().limit(&rates);
    let began = Instant::now();
    start(&vm);
    // While it waits it can be paused, and continues where it was.
    while vm.console().printed() == 0 {
        thread::yield_now();
    }
    vm.pause().unwrap().resume_here().unwrap();
    drop(vm.wait_end());
    let (took, all) = (began.elapsed(), u64::from(PIECES * CONSOLE_OUT_SIZE));
    assert_eq!((vm.console().printed(), printed(&vm).len() as u64), (all, all));
    let least = Duration::from_secs(1) * (all - burst) as u32;
    assert!(took >= least / RATE as u32, "{all} bytes took {took:?}");
    let stats = vm.stats();
    assert!(stats.console_throttled > 0 && stats.console_throttled_ns > 0, "{stats:?}");
    assert!(
        stats.exits.console <= u64::from(PIECES) + 1,
        "it is stopped in its doorbell: {stats:?}"
    );
    assert_eq!(stats.rates, rates);
}

/// Rate in bytes per second each way, and burst in bytes.
const NET_RATE: u64 = 500_000;
const NET_BURST: u64 = 64 << 10;
const LIMIT: &str = "4Mbit,burst=64K";
/// The largest packet, which may overdraw the budget.
const LARGEST: u64 = 64 << 10;
const VALUE: usize = 600_000;

/// A client of a key-value store, and how long its last request took.
struct Client(TcpStream);

impl Client {
    fn on(ns: &Namespace, server: SocketAddr) -> Self {
        drop(Connection::open_when_up(ns, server, TIMEOUT).unwrap());
        let stream = ns.enter(move || TcpStream::connect(server)).unwrap().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_write_timeout(Some(TIMEOUT)).unwrap();
        Self(stream)
    }

    fn put(&mut self, value: &[u8]) -> Duration {
        let began = Instant::now();
        let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", value.len());
        self.0.write_all(&[head.as_bytes(), value, b"\r\n"].concat()).unwrap();
        let mut answer = [0; 5];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"+OK\r\n");
        began.elapsed()
    }

    fn get(&mut self, value: &[u8]) -> Duration {
        let began = Instant::now();
        self.0.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").unwrap();
        let all = [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
        let mut answer = vec![0; all.len()];
        self.0.read_exact(&mut answer).unwrap();
        assert!(answer == all, "another value came back");
        began.elapsed()
    }
}

#[test]
fn a_network_is_no_faster_than_its_rate_and_loses_nothing() {
    let Some(site) = Site::for_test("rates of the network") else { return };
    let [here, there] = Vmm::on_both(&site).unwrap();
    let kv = image("kv").unwrap();
    let args = ["--name", "kv", "--memory", "32M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let _vm = here.run(&kv, &[&args[..], &["--net-rate", LIMIT]].concat()).unwrap();
    let server: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let mut client = Client::on(&site.client, server);
    let value: Vec<u8> = (0..VALUE).map(|n| (n % 251) as u8).collect();
    let stats = |vmm: &Vmm| vmm.json(&["stats", "kv", "--json"]).unwrap();
    let least = Duration::from_secs(1) * (VALUE as u64 - NET_BURST - LARGEST) as u32;
    let least = least / NET_RATE as u32;

    // Verbs answer while its packets wait, and a client of another VM is unaffected.
    let other = ["--name", "other", "--memory", "32M", "--tap", "tap0", "--ip", "10.0.0.3/24"];
    let _other = there.run(&kv, &other).unwrap();
    let mut neighbour = Client::on(&site.client, "10.0.0.3:6379".parse().unwrap());
    let before = stats(&here);
    let done = AtomicBool::new(false);
    let (put, got) = thread::scope(|scope| {
        let verbs = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(SeqCst) {
                here.json(&["pause", "kv", "--json"]).unwrap();
                here.json(&["resume", "kv", "--json"]).unwrap();
                neighbour.put(b"x");
                neighbour.get(b"x");
                rounds += 1;
            }
            rounds
        });
        let times = (client.put(&value), client.get(&value));
        done.store(true, SeqCst);
        assert!(verbs.join().unwrap() > 0);
        times
    });
    assert!(put >= least && got >= least, "{VALUE} bytes took {put:?} in and {got:?} out");
    let after = stats(&here);
    let n = |of: &Value, path: &str| of.pointer(path).and_then(Value::as_u64).unwrap();
    for key in ["rx_throttled", "rx_throttled_ns", "tx_throttled", "tx_throttled_ns"] {
        assert!(n(&after, &format!("/net/{key}")) > 0, "{key}: {after}");
    }
    // A guest that cannot send asks to be woken at once. The VMM makes it wait a millisecond.
    let more = |path: &str| n(&after, path) - n(&before, path);
    let packets = more("/net/rx_packets") + more("/net/tx_packets");
    let rings = more("/exits/doorbell");
    assert!(rings <= 4 * more("/uptime_ms") + 4 * packets, "{rings} doorbells, {packets} packets");
}

/// The rates of the VM `name` in `stats`.
fn rates_of(vmm: &Vmm, name: &str) -> Value {
    vmm.json(&["stats", name, "--json"]).unwrap()["rates"].clone()
}

#[test]
fn a_vm_has_the_rates_of_its_process_however_it_was_started() {
    let Some(site) = Site::for_test("rates, however a VM comes to be") else { return };
    let [here, there] = Vmm::on_both(&site).unwrap();
    let none = serde_json::to_value(Rates::default()).unwrap();
    let options = |packets: &'static str, console: &'static str| {
        ["--net-rate", packets, "--console-rate", console]
    };
    let expected = |packets: u64, console: u64| {
        let net = json!({ "bytes": null, "packets": { "per_second": packets, "burst": 64 } });
        json!({ "net": net, "console": { "per_second": console, "burst": 65536 } })
    };
    let run = |args: &[&str]| {
        let own = ["--name", "d", "--memory", "16M"];
        let args = [&own[..], args, &["--", "--pages", "8"]].concat();
        let vm = here.run(&image("dirtier").unwrap(), &args).unwrap();
        vm.wait_for_line("nonce", TIMEOUT).unwrap();
        vm
    };
    let file = std::env::temp_dir().join(format!("vmm-lite-rates-{}.snap", std::process::id()));
    let path = file.to_str().unwrap().to_owned();
    let mut vm = run(&options("packets=501", "1kB"));
    assert_eq!(rates_of(&here, "d"), expected(501, 1000), "run");
    // None of them has the rates that the VM had before.
    for limited in [true, false] {
        let limit = if limited { &options("packets=502", "2kB")[..] } else { &[] };
        let rates = if limited { expected(502, 2000) } else { none.clone() };
        let fork = [&["fork", "d", "--count", "1", "--detach", "--json"], limit].concat();
        here.json(&fork).unwrap();
        assert_eq!(rates_of(&here, "d-1"), rates, "fork, {limited}");
        here.json(&["stop", "d-1", "--json"]).unwrap();
        let next = there.receive(7000, limit).unwrap();
        here.migrate("d", &there.url(7000)).unwrap();
        assert_eq!(rates_of(&there, "d"), rates, "receive, {limited}");
        there.json(&["snapshot", "d", &path, "--json"]).unwrap();
        drop((std::mem::replace(&mut vm, next), there.json(&["stop", "d", "--json"])));
        for how in [&[][..], &["--lazy"]] {
            let restore = [&["restore", &path], how, limit].concat();
            let copy = Process::start(here.command(&restore).unwrap()).unwrap();
            copy.wait_for_line("passes=", TIMEOUT).unwrap();
            assert_eq!(rates_of(&here, "d"), rates, "restore {how:?}, {limited}");
            here.json(&["stop", "d", "--json"]).unwrap();
            drop(copy);
        }
        vm = run(&options("packets=501", "1kB"));
    }
    drop(vm);
    std::fs::remove_file(file).unwrap();
}
