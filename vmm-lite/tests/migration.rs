//! VMs move between hosts: real images, real clients, and peers that hang, die or lie.

use migrate::{
    PROTOCOL_VERSION,
    offer::Refusal,
    wire::{Accepted, Header, Message, Outcome},
};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    time::Duration,
};
use vmm::kvm::Host;
use vmm_lite_lab::{
    accept::accept,
    images::image,
    message::next_message,
    probe::{Connection, Probe},
    process::Process,
    redis,
    site::Site,
    skipped,
    vmm::{TIMEOUT, Vmm},
    writers::Writers,
};

/// The lab with an image, or `None` after printing why not.
fn lab(test: &str, app: &str) -> Option<(Site, [Vmm; 2], PathBuf)> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    Some((site, vmms, image(app).unwrap()))
}

/// Moves `name` and returns the process that then runs it.
fn moved(from: &Vmm, to: &Vmm, name: &str, mut source: Process, args: &[&str]) -> (Process, Value) {
    let destination = to.receive(7000, args).unwrap();
    let report = from.migrate(name, &to.url(7000)).unwrap();
    assert!(source.wait(TIMEOUT).unwrap().success(), "the source ends well: {}", source.output());
    (destination, report)
}

/// Starts dirtier and waits until it writes.
fn dirtier(vmm: &Vmm, image: &std::path::Path) -> Process {
    let vm = vmm.run(image, &["--name", "d", "--memory", "16M", "--", "--pages", "64"]).unwrap();
    vm.wait_for_line("nonce", TIMEOUT).unwrap();
    vm
}

/// Where a page that KVM's tables lack costs more than this, the prewarming does not get far in its
/// time.
const SLOW_FAULT: Duration = Duration::from_micros(60);

/// The reported brownouts, on a host that can tell.
#[derive(Default)]
struct Brownouts {
    /// Number of the guest's KVM page faults after each move.
    faults: Vec<u64>,
    /// The highest cost of one, measured after each move.
    cost: Duration,
    untold: bool,
}

impl Brownouts {
    fn add(&mut self, report: &Value) {
        let n = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
        match Host::open().and_then(|host| host.fault_cost()) {
            Ok(cost) => self.cost = self.cost.max(cost.fault),
            Err(e) => {
                skipped("brownouts", e);
                assert_eq!(report["brownout_ns"], Value::Null);
                self.untold = true;
                return;
            }
        }
        assert!(n("brownout_lost_ns") <= n("brownout_ns"), "{report}");
        self.faults.push(n("brownout_page_faults"));
    }

    /// Checks that guests which rewrite `pages` pages begin warm. KVM fills in eight pages at a
    /// time: a guest that begins cold has a fault for each eight of them, in every move. On a busy
    /// host some are not quite warm.
    fn guests_begin_warm(&self, pages: u64) {
        if self.untold {
            return;
        }
        if self.cost > SLOW_FAULT {
            let why = format_args!("a fault takes up to {:?} here", self.cost);
            return skipped("how warm a destination is", why);
        }
        assert!(self.faults.iter().any(|n| *n < pages / 8), "{:?}, {:?}", self.faults, self.cost);
    }
}

/// Waits for dirtier's output, once a second, and checks it.
fn dirtier_is_whole(vm: &Process) {
    let line = vm.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}

#[test]
fn self_checking_memory_arrives_intact_every_time() {
    let Some((_site, vmms, image)) = lab("moves of dirtier", "dirtier") else { return };
    let mut vm = dirtier(&vmms[0], &image);
    let mut brownouts = Brownouts::default();
    for n in 0..10 {
        let (next, report) = moved(&vmms[n % 2], &vmms[(n + 1) % 2], "d", vm, &[]);
        let phases: u64 =
            report["phases"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
        assert_eq!(report["blackout_ns"].as_u64().unwrap(), phases, "phases add up: {report}");
        brownouts.add(&report);
        for figure in ["total_ns", "bytes_sent", "rounds"] {
            assert!(report[figure].as_u64().unwrap() > 0, "{figure} in {report}");
        }
        vm = next;
    }
    brownouts.guests_begin_warm(64);
    dirtier_is_whole(&vm);
    vmms[0].json(&["stop", "d", "--json"]).unwrap();
    vm.wait(TIMEOUT).unwrap();
}

/// Memory that a store has freed is not sent, and the report says how much that was: only pages
/// with content count.
#[test]
fn memory_that_was_freed_is_left_out_and_counted() {
    let Some((site, vmms, image)) = lab("memory that was freed", "kv") else { return };
    let guest: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let mut vm = vmms[0].run(&image, &args).unwrap();
    let mut client = Connection::open_when_up(&site.client, guest, TIMEOUT).unwrap();
    const KEYS: usize = 128;
    const VALUE: usize = 32 << 10;
    let value = "x".repeat(VALUE);
    let mut left_out = Vec::new();
    for (n, fill) in [true, false].into_iter().enumerate() {
        let of = |key: usize| format!("SET key{key} {value}\r\n");
        let command = |key| if fill { of(key) } else { format!("DEL key{key}\r\n") };
        for key in 0..KEYS {
            let answer = client.request(&command(key)).unwrap();
            assert!(answer == "+OK" || answer == ":1", "{answer}");
        }
        let (next, report) = moved(&vmms[n], &vmms[1 - n], "kv", vm, &["--tap", "tap0"]);
        let of = |key: &str| report[key].as_u64().unwrap_or_else(|| panic!("{key} in {report}"));
        // Most of the guest's memory was never written to: it is not needed, and would not have
        // been sent.
        assert!(of("bytes_left_out") < 4096 * of("pages_dont_care"), "{report}");
        left_out.push((of("bytes_left_out"), of("bytes_sent")));
        vm = next;
    }
    let freed = (KEYS * VALUE) as u64;
    let [(before, all), (after, rest)] = left_out[..] else { unreachable!() };
    assert!(after - before > freed / 2 && after < 2 * freed, "{left_out:?}, freed {freed}");
    assert!(all - rest > freed / 2, "{left_out:?}, freed {freed}");
}

#[test]
fn clients_of_a_store_that_moves_notice_nothing() {
    const TEST: &str = "moves of kv under load";
    let Some((site, vmms, image)) = lab(TEST, "kv") else { return };
    let guest: SocketAddr = "10.0.0.2:6379".parse().unwrap();
    let args = ["--name", "kv", "--memory", "16M", "--tap", "tap0", "--ip", "10.0.0.2/24"];
    let mut vm = vmms[0].run(&image, &args).unwrap();
    let mut connection = Connection::open_when_up(&site.client, guest, TIMEOUT).unwrap();
    // A value that is only in the guest's memory: a restarted guest would not have it.
    assert_eq!(connection.request("SET nonce 8f1c29\r\n").unwrap(), "+OK");
    let mut load = match redis::background_load(
        &site.client,
        guest,
        &["-t", "set,get", "-c", "8", "-r", "100"],
    ) {
        Ok(load) => load,
        Err(e) => return skipped(TEST, e),
    };
    let writers = Writers::start(&site.client, guest, "writes", 3).unwrap();
    let probe = Probe::start(&site.client, guest, "counter", Duration::ZERO).unwrap();
    for n in 0..20 {
        (vm, _) = moved(&vmms[n % 2], &vmms[(n + 1) % 2], "kv", vm, &["--tap", "tap0"]);
    }
    assert!(load.is_running(), "redis-benchmark ended: {}", load.output());
    drop(load);
    let seen = probe.stop();
    let writes = writers.stop().unwrap();
    assert!(writes > 0, "with several under way on each connection, too");
    assert!(seen.errors.is_empty(), "{:?}", &seen.errors[..seen.errors.len().min(5)]);
    assert_eq!(seen.reconnects, 0);
    assert_eq!(seen.counter as usize, seen.samples.len(), "every write once");
    // The connection from before the moves is still open.
    assert_eq!(connection.bulk("GET nonce\r\n").unwrap().as_deref(), Some("8f1c29"));
    vmms[0].json(&["stop", "kv", "--json"]).unwrap();
    vm.wait(TIMEOUT).unwrap();
}

/// The error of `vmm-lite migrate` when the move fails.
fn refused(vmm: &Vmm, url: &str) -> String {
    vmm.migrate("d", url).unwrap_err().to_string()
}

#[test]
fn an_impossible_move_is_refused_and_the_vm_keeps_running() {
    let Some((_site, vmms, image)) = lab("refusals", "dirtier") else { return };
    let [here, there] = &vmms;
    let vm = dirtier(here, &image);
    let expect = |said: String, text: &str| assert!(said.contains(text), "{said}");
    expect(refused(here, &there.url(7999)), "cannot reach tcp://10.9.0.2:7999");
    expect(refused(here, "10.9.0.2:7000"), "write tcp://HOST:PORT");
    expect(here.migrate("nobody", &there.url(7000)).unwrap_err().to_string(), "no VM named nobody");
    {
        let _small = there.receive(7001, &["--memory-max", "8M"]).unwrap();
        expect(refused(here, &there.url(7001)), "gives at most 8388608");
    }
    {
        let _other = dirtier(there, &image);
        let _taken = there.receive(7002, &[]).unwrap();
        expect(refused(here, &there.url(7002)), "a VM named d runs already");
    }
    let _first = there.receive(7003, &[]).unwrap();
    let second = there.receive(7003, &[]).unwrap_err().to_string();
    assert!(second.contains("another process listens there"), "{second}");
    // After all these failures a move to the same listener succeeds.
    here.migrate("d", &there.url(7003)).unwrap();
    drop(vm);
}

/// Sent data is in transit for longer than a destination may be silent.
#[test]
fn a_slow_link_is_not_taken_for_a_dead_one() {
    let Some((site, [here, there], image)) = lab("a move over a slow link", "dirtier") else {
        return;
    };
    let slow = "qdisc add dev mig root tbf rate 2mbit burst 16kb latency 10s";
    let tc = site.hosts[0].ns.command("tc").args(slow.split(' ')).output().unwrap();
    if !tc.status.success() {
        let why = String::from_utf8_lossy(&tc.stderr).trim().to_owned();
        return skipped("a move over a slow link", why);
    }
    let vm = dirtier(&here, &image);
    let (there, report) = moved(&here, &there, "d", vm, &[]);
    assert!(report["total_ns"].as_u64().unwrap() > 1_000_000_000, "it was slow: {report}");
    let line = there.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}

/// A destination that behaves for this many of its messages, and then does something else.
fn liar(listener: TcpListener, answers: usize, then: impl FnOnce(TcpStream) + Send + 'static) {
    let mut stream = accept(&listener).unwrap();
    let mut given = 0;
    while given < answers {
        let Some(message) = next_message(&mut stream, 4096) else { return };
        let answer = match message {
            Message::Hello(id) => Message::Welcome(id, [1; 16]),
            Message::Offer(_) => Message::Accept(Accepted::default()),
            Message::RoundEnd(n) => Message::RoundDone(n),
            Message::State(_) => Message::Abort("it does not fit".into()),
            // The commit with the state, which it ignores.
            Message::Commit(id, _) => Message::Outcome(id, Outcome::Never),
            Message::Query(id, _) => Message::Outcome(id, Outcome::Never),
            _ => continue,
        };
        stream.write_all(&answer.encode()).unwrap();
        given += 1;
    }
    then(stream);
}

#[test]
fn a_destination_that_dies_or_lies_leaves_the_vm_at_the_source() {
    let Some((site, vmms, image)) = lab("faulty destinations", "dirtier") else { return };
    let vm = dirtier(&vmms[0], &image);
    let nonsense: [(&str, Vec<u8>); 4] = [
        ("bytes", vec![0x55; 64]),
        ("too much", {
            let mut header =
                Header { kind: migrate::wire::Kind::Ready, length: 0, checksum: 0 }.encode();
            header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
            header.to_vec()
        }),
        ("a commit", Message::Commit([1; 16], Vec::new()).encode()),
        ("a refusal", Message::Refuse(Refusal::Network).encode()),
    ];
    // In stop-and-copy mode the third answer is about the state, before the commit.
    for (answers, mode) in [(0, "auto"), (1, "auto"), (2, "auto"), (2, "stop-and-copy")] {
        let mut tries: Vec<(&str, Option<Vec<u8>>)> = vec![("nothing", None)];
        tries.extend(nonsense.iter().map(|(name, bytes)| (*name, Some(bytes.clone()))));
        for (what, bytes) in tries {
            let listener =
                site.hosts[1].ns.enter(|| TcpListener::bind("10.9.0.2:7000").unwrap()).unwrap();
            let peer = std::thread::spawn(move || {
                liar(listener, answers, move |mut stream| {
                    if let Some(bytes) = bytes {
                        // The source may have disconnected already.
                        let _ = stream.write_all(&bytes);
                        let _ = stream.read(&mut [0; 64]);
                    }
                });
            });
            let url = vmms[1].url(7000);
            let args = ["migrate", "d", &url, "--plaintext", "--json", "--mode", mode];
            let said = vmms[0].json(&args).unwrap_err().to_string();
            let reason = |l: &str| l.starts_with("vmm-lite: ") && !l.contains("warning");
            assert!(said.lines().any(reason), "after {answers} answers {what}: {said}");
            peer.join().unwrap();
            let stats = vmms[0].json(&["stats", "d", "--json"]).unwrap();
            assert_eq!(stats["state"], "running", "after {answers} answers {what}");
        }
    }
    let (vm, _) = moved(&vmms[0], &vmms[1], "d", vm, &[]);
    dirtier_is_whole(&vm);
}

#[test]
fn a_listener_survives_unauthenticated_peers() {
    let Some((site, vmms, image)) = lab("unauthenticated peers", "dirtier") else { return };
    let vm = dirtier(&vmms[0], &image);
    let destination = vmms[1].receive(7000, &[]).unwrap();
    let mut old = Message::Hello([1; 16]).encode();
    old[4..6].copy_from_slice(&(PROTOCOL_VERSION + 1).to_le_bytes());
    let mut big = Message::Hello([1; 16]).encode();
    big[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        old,
        big,
        Message::Commit([1; 16], Vec::new()).encode(),
        Vec::new(),
    ] {
        site.hosts[0]
            .ns
            .enter(move || {
                let mut stream = TcpStream::connect("10.9.0.2:7000").unwrap();
                stream.write_all(&bytes).unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                // It closes the connection instead of waiting for more.
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                stream.read_to_end(&mut Vec::new()).map(drop).or_else(|e| {
                    if e.kind() == std::io::ErrorKind::ConnectionReset { Ok(()) } else { Err(e) }
                })
            })
            .unwrap()
            .unwrap();
    }
    vmms[0].migrate("d", &vmms[1].url(7000)).unwrap();
    dirtier_is_whole(&destination);
    drop(vm);
}
