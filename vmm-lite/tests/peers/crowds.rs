//! Peers that connect and send nothing, or nothing valid, or that are many.

use crate::fixture::{AT, connect, ended, fixture};
use migrate::wire::{Header, Kind, Message};
use std::{
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use vmm_lite_lab::{process::Process, vmm::TIMEOUT};

#[test]
fn port_scanners_and_peers_that_send_garbage_are_disconnected() {
    let Some(mut fixture) = fixture("scanners") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    for _ in 0..20 {
        drop(fixture.connect());
    }
    let header = |kind, length| Header { kind, length, checksum: 0 }.encode().to_vec();
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100_000],
        vec![0xff; 100_000],
        header(Kind::State, u32::MAX),
        Message::Hello([1; 16]).encode(),
        // Records that announce more than a record may have, and a hello of 16 MiB in small ones.
        vec![22, 3, 1, 0xff, 0xff, 1, 0, 0, 0],
        [22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0].repeat(10_000),
    ] {
        let mut stream = fixture.connect();
        // It may close before it has read everything.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        assert!(ended(&mut stream));
    }
    fixture.moves(&destination);
}

#[test]
fn slow_peers_are_evicted() {
    let Some(mut fixture) = fixture("slow peers") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    let began = Instant::now();
    let mut silent = fixture.connect();
    let mut slow = fixture.connect();
    // One byte at intervals, of what begins as a handshake.
    let record: Vec<u8> = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0; 500]].concat();
    let drip = thread::spawn(move || {
        for byte in record {
            if slow.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(200));
        }
        began.elapsed()
    });
    assert!(ended(&mut silent));
    let (silent_for, dripped_for) = (began.elapsed(), drip.join().unwrap());
    for time in [silent_for, dripped_for] {
        assert!(time > Duration::from_secs(3) && time < TIMEOUT, "{time:?}");
    }
    // By admission control or by the handshake: both have the same timeout.
    destination.wait_for_line("a connection from 10.9.0.1 came to nothing", TIMEOUT).unwrap();
    fixture.moves(&destination);
}

#[test]
fn many_unauthenticated_peers_do_not_block_a_trusted_host() {
    let Some(mut fixture) = fixture("a crowd") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    let memory = |of: &Process| {
        let status = fs::read_to_string(format!("/proc/{}/status", of.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory(&destination);
    // From the trusted host's own address, and from another.
    let crowd: Vec<_> = (0..200).map(|n| connect(&fixture.site.hosts[n % 2])).collect();
    let grown = memory(&destination) - before;
    assert!(grown < 16 << 10, "{grown} KiB for 200 peers");
    fixture.moves(&destination);
    drop(crowd);
}

#[test]
fn many_peers_that_keep_connecting_do_not_disturb_a_move() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    let Some(mut fixture) = fixture("a crowd that keeps coming") else { return };
    let destination = fixture.vmms[1].receive(7000, &[]).unwrap();
    let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // From another host, as those from the same one compete with it.
    let from = fixture.site.hosts[1].clone();
    let crowd = thread::spawn({
        let (stop, came) = (Arc::clone(&stop), Arc::clone(&came));
        move || {
            from.ns.enter(move || {
                let mut held = std::collections::VecDeque::new();
                while !stop.load(SeqCst) {
                    held.extend(TcpStream::connect(AT));
                    came.fetch_add(1, SeqCst);
                    if held.len() > 100 {
                        held.pop_front();
                    }
                }
            })
        }
    });
    while came.load(SeqCst) < 200 {
        thread::yield_now();
    }
    fixture.moves(&destination);
    // Before the fixture is dropped: on a removed network, connecting takes minutes.
    stop.store(true, SeqCst);
    crowd.join().unwrap().unwrap();
    assert!(came.load(SeqCst) > 200);
}
