//! An attacker between two hosts, who records their traffic or breaks their link.

use crate::fixture::{Fixture, connect, ended, fixture};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    thread,
};
use vmm_lite_lab::{accept::accept, process::Process, vmm::TIMEOUT};

/// Listens on port 7005 of the second host, where the relays of these tests are.
fn relay_listener(fixture: &Fixture) -> TcpListener {
    fixture.site.hosts[1].ns.enter(|| TcpListener::bind("10.9.0.2:7005").unwrap()).unwrap()
}

/// Forwards bytes until one side closes, and returns them.
fn hand_on(mut from: TcpStream, mut to: TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        all.extend_from_slice(&buffer[..n]);
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    all
}

/// Without encryption an attacker on the path can record a move, but cannot use the recording.
#[test]
fn a_move_that_was_recorded_runs_nowhere_else() {
    let Some(fixture) = fixture("a recorded move") else { return };
    let destination = fixture.vmms[1].receive(7000, &["--plaintext"]).unwrap();
    let listener = relay_listener(&fixture);
    let recorder = thread::spawn({
        let host = fixture.site.hosts[1].clone();
        move || {
            let from = accept(&listener).unwrap();
            let to = connect(&host);
            let (back_from, back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            let back = thread::spawn(move || hand_on(back_from, back_to));
            let recorded = hand_on(from, to);
            back.join().unwrap();
            recorded
        }
    });
    let url = fixture.vmms[1].url(7005);
    fixture.vmms[0].json(&["migrate", "d", &url, "--plaintext", "--json"]).unwrap();
    destination.wait_for_line("passes=", TIMEOUT).unwrap();
    let recorded = recorder.join().unwrap();
    assert!(recorded.len() > 64 * 4096, "pages and all");
    let other = fixture.vmms[1].receive(7001, &["--plaintext", "--name", "again"]).unwrap();
    let mut stream =
        fixture.site.hosts[0].ns.enter(|| TcpStream::connect("10.9.0.2:7001").unwrap()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    // It may close before it has read everything.
    let _ = stream.write_all(&recorded);
    assert!(ended(&mut stream));
    other.wait_for_line("made to another receiver", TIMEOUT).unwrap();
    let runs = fixture.vmms[1].json(&["ps", "--json"]).unwrap();
    let names: Vec<_> = runs.as_array().unwrap().iter().map(|vm| vm["name"].clone()).collect();
    assert_eq!(names, ["d"]);
}

/// The link breaks when the VM runs at the destination and before the source has received
/// `Running`.
#[test]
#[cfg(debug_assertions)]
fn a_source_that_lost_the_link_at_the_commit_asks_over_tls() {
    use vmm::fail_point::CHOICE;
    let Some(mut fixture) = fixture("a late question") else { return };
    let there = &fixture.vmms[1];
    let mut receive = there.command(&["receive", "--listen", &there.url(7000)]).unwrap();
    receive.env(CHOICE, "destination.running=cut");
    let destination = Process::start(receive).unwrap();
    destination.wait_for_line("listening", TIMEOUT).unwrap();
    let listener = relay_listener(&fixture);
    let host = fixture.site.hosts[1].clone();
    let relay = thread::spawn(move || {
        // The move, and the query; the answer to the query comes back.
        let [_, asked] = [(); 2].map(|()| {
            let (from, to) = (accept(&listener).unwrap(), connect(&host));
            let (back_from, back_to) = (to.try_clone().unwrap(), from.try_clone().unwrap());
            let back = thread::spawn(move || hand_on(back_from, back_to));
            let said = hand_on(from, to);
            back.join().unwrap();
            said
        });
        asked
    });
    fixture.vmms[0].migrate("d", &fixture.vmms[1].url(7005)).unwrap();
    assert!(fixture.vm.wait(TIMEOUT).unwrap().success(), "{}", fixture.vm.output());
    assert!(fixture.vm.output().contains("asking tcp://10.9.0.2:7005"), "{}", fixture.vm.output());
    let asked = relay.join().unwrap();
    assert_eq!(asked[0], 22, "a handshake comes first");
    assert!(!asked.windows(4).any(|four| four == b"VMLM"), "nothing is said in the clear");
    let line = destination.wait_for_line("passes=", TIMEOUT).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}
