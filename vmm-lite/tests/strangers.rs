//! `vmm-lite receive` among strangers: whatever they do, the next host that is trusted gets its VM in.

use migrate::wire::{Header, Kind, Message};
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};
use vmm_lite::{
    identity::{HostIdentity, IdentityDir, TrustStore, Trusted},
    migration::{
        connection::{Connection, Incoming, Transport},
        tls::Credentials,
        wanted::Wanted,
    },
};
use vmm_lite_lab::{
    accept::accept,
    images::image,
    process::Process,
    site::{Host, Site},
    vmm::{PATIENCE, Vmm},
};

const AT: &str = "10.9.0.2:7000";
const DAY: Duration = Duration::from_secs(24 * 3600);

struct Place {
    site: Site,
    vmms: [Vmm; 2],
    vm: Process,
}

/// A VM on the first host, ready to move.
fn place(test: &str) -> Option<Place> {
    let site = Site::for_test(test)?;
    let vmms = Vmm::on_both(&site).unwrap();
    let image = image("dirtier").unwrap();
    let args = ["--name", "d", "--memory", "16M", "--", "--pages", "64"];
    let vm = vmms[0].run(&image, &args).unwrap();
    vm.wait_for_line("nonce", PATIENCE).unwrap();
    Some(Place { site, vmms, vm })
}

impl Place {
    /// The listener still takes a VM from the host that it trusts, and soon.
    fn moves(&mut self, destination: &Process) {
        let began = Instant::now();
        self.vmms[0].migrate("d", &self.vmms[1].url(7000)).unwrap();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(self.vm.wait(PATIENCE).unwrap().success(), "{}", self.vm.output());
        let line = destination.wait_for_line("passes=", PATIENCE).unwrap();
        assert!(line.contains("errors=0"), "{line}");
    }

    /// Connects from the first host.
    fn connect(&self) -> TcpStream {
        connect(&self.site.hosts[0])
    }
}

fn connect(from: &Host) -> TcpStream {
    let stream = from.ns.enter(|| TcpStream::connect(AT)).unwrap().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether the other side ends the connection before the patience does.
fn ended(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(e) => return e.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Changes the first host's certificate to one for another time.
fn at_another_time(dir: &Path, validity: std::ops::Range<SystemTime>) {
    let other = HostIdentity::generate_for(validity).unwrap();
    let (key, certificate) = other.pem();
    fs::write(dir.join("key.pem"), key).unwrap();
    fs::write(dir.join("certificate.pem"), certificate).unwrap();
}

/// Lets the destination trust whoever the first host is now, as `name`.
fn trust(of: &Vmm, who: &HostIdentity, name: &str) {
    let dir = IdentityDir::find(Some(of.identity()));
    let host = Trusted { key: who.public(), name: name.into(), send: true, receive: true };
    dir.change_trusted(|store| store.add(host)).unwrap();
}

/// Another host than the two, as the library makes connections.
fn other_host(to: &Vmm, identity: HostIdentity) -> Transport {
    let there = IdentityDir::find(Some(to.identity())).load().unwrap().public();
    let mut trusted = TrustStore::default();
    trusted.add(Trusted { key: there, name: "there".into(), send: true, receive: true }).unwrap();
    Transport::Tls(Credentials { identity: Arc::new(identity), trusted: Arc::new(trusted) })
}

/// What the destination tells one that begins like this.
fn greet(from: &Host, transport: Transport, first: Message) -> Result<Message, String> {
    from.ns
        .enter(move || {
            let to = format!("tcp://{AT}").parse().unwrap();
            let mut connection = Connection::open(&to, &transport, None, PATIENCE, &Wanted::ALWAYS)
                .map_err(|e| e.to_string())?;
            connection.send(&first).map_err(|e| e.to_string())?;
            match connection.receive(0).map_err(|e| e.to_string())? {
                Incoming::Message(message) => Ok(message),
                Incoming::Pages(_) => panic!("pages"),
            }
        })
        .unwrap()
}

#[test]
fn hosts_that_are_not_trusted_or_not_now_are_told_why() {
    let Some(mut place) = place("strangers with TLS") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    let from = &place.site.hosts[0];
    let hello = || Message::Hello([1; 16]);
    let here = IdentityDir::find(Some(place.vmms[0].identity())).load().unwrap().public();
    let said =
        greet(from, other_host(&place.vmms[1], HostIdentity::generate(10).unwrap()), hello());
    assert!(said.unwrap_err().contains("does not trust this one's key"));
    destination.wait_for_line("is not trusted here", PATIENCE).unwrap();
    // Trusted, but with certificates for other times.
    let now = SystemTime::now();
    for (name, validity, why) in [
        ("old", now - DAY * 9..now - DAY, "has expired"),
        ("young", now + DAY..now + DAY * 9, "is not valid yet"),
    ] {
        let identity = HostIdentity::generate_for(validity).unwrap();
        trust(&place.vmms[1], &identity, name);
        let said = greet(from, other_host(&place.vmms[1], identity), hello());
        assert!(said.unwrap_err().contains("has expired or is not valid yet"));
        destination.wait_for_line(&format!("certificate of {name}"), PATIENCE).unwrap();
        destination.wait_for_line(why, PATIENCE).unwrap();
    }
    assert!(
        !destination.output().contains(&here.to_string()),
        "nothing is said of the one that is trusted"
    );
    place.moves(&destination);
}

#[test]
fn whoever_is_not_trusted_any_more_is_not_from_now_on() {
    let Some(mut place) = place("revoked trust") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    let dir = IdentityDir::find(Some(place.vmms[1].identity()));
    let gone = dir.change_trusted(|store| store.remove("host0")).unwrap();
    let said = place.vmms[0].migrate("d", &place.vmms[1].url(7000)).unwrap_err().to_string();
    assert!(said.contains("does not trust this one's key"), "{said}");
    // A file that makes no sense lets nobody in.
    fs::write(dir.path().join("trusted"), "everybody\n").unwrap();
    place.vmms[0].migrate("d", &place.vmms[1].url(7000)).unwrap_err();
    fs::write(dir.path().join("trusted"), format!("{gone}\n")).unwrap();
    place.moves(&destination);
}

#[test]
fn a_host_without_an_identity_is_told_how_to_get_one() {
    let Some(mut place) = place("no identity") else { return };
    fs::rename(place.vmms[0].identity(), place.vmms[0].identity().with_extension("away")).unwrap();
    let said = place.vmms[0].migrate("d", &place.vmms[1].url(7000)).unwrap_err().to_string();
    for part in ["identity init", "identity trust", "--plaintext"] {
        assert!(said.contains(part), "{said}");
    }
    fs::rename(place.vmms[0].identity().with_extension("away"), place.vmms[0].identity()).unwrap();
    // One whose own certificate has expired does not even try.
    let kept = [
        fs::read(place.vmms[0].identity().join("key.pem")),
        fs::read(place.vmms[0].identity().join("certificate.pem")),
    ];
    let now = SystemTime::now();
    at_another_time(&place.vmms[0].identity(), now - DAY * 9..now - DAY);
    let said = place.vmms[0].migrate("d", &place.vmms[1].url(7000)).unwrap_err().to_string();
    assert!(
        said.contains("this host's certificate has expired") && said.contains("identity renew"),
        "{said}"
    );
    for (file, content) in ["key.pem", "certificate.pem"].into_iter().zip(kept) {
        fs::write(place.vmms[0].identity().join(file), content.unwrap()).unwrap();
    }
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    place.moves(&destination);
}

#[test]
fn plaintext_is_for_both_or_neither() {
    let Some(place) = place("plaintext") else { return };
    let url = place.vmms[1].url(7000);
    {
        let _tls = place.vmms[1].receive(7000, &[]).unwrap();
        let began = Instant::now();
        let said = place.vmms[0]
            .json(&["migrate", "d", &url, "--plaintext", "--json"])
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("warning: the move is neither encrypted nor authenticated"),
            "{said}"
        );
        assert!(said.contains("this destination takes TLS only"), "{said}");
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let plain = place.vmms[1].receive(7000, &["--plaintext"]).unwrap();
    assert!(plain.output().contains("neither encrypted nor authenticated"), "{}", plain.output());
    let began = Instant::now();
    let said = place.vmms[0].migrate("d", &url).unwrap_err().to_string();
    assert!(said.contains("the other side speaks plaintext"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(2));
    plain.wait_for_line("the peer speaks TLS", PATIENCE).unwrap();
    // A stranger may send here; but not what somebody else has sent.
    let hello = || Message::Hello([9; 16]);
    let from = &place.site.hosts[0];
    assert!(matches!(greet(from, Transport::Plaintext, hello()), Ok(Message::Welcome(..))));
    plain.wait_for_line("did not arrive", PATIENCE).unwrap();
    match greet(from, Transport::Plaintext, hello()) {
        Ok(Message::Abort(why)) => assert!(why.contains("begun before"), "{why}"),
        other => panic!("{other:?}"),
    }
    place.vmms[0].json(&["migrate", "d", &url, "--plaintext", "--json"]).unwrap();
    plain.wait_for_line("passes=", PATIENCE).unwrap();
}

#[test]
fn port_scanners_and_babblers_get_nowhere() {
    let Some(mut place) = place("scanners") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    for _ in 0..20 {
        drop(place.connect());
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
        let mut stream = place.connect();
        // It may have had enough before it has all.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        assert!(ended(&mut stream));
    }
    place.moves(&destination);
}

#[test]
fn those_who_take_their_time_are_shown_out() {
    let Some(mut place) = place("slow strangers") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    let began = Instant::now();
    let mut silent = place.connect();
    let mut slow = place.connect();
    // A byte now and then, of what begins as a handshake.
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
        assert!(time > Duration::from_secs(3) && time < Duration::from_secs(9), "{time:?}");
    }
    // By the doorkeeper or by the handshake: both have the same time.
    destination.wait_for_line("a connection from 10.9.0.1 came to nothing", PATIENCE).unwrap();
    place.moves(&destination);
}

#[test]
fn a_crowd_of_strangers_keeps_nobody_out() {
    let Some(mut place) = place("a crowd") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    let memory = |of: &Process| {
        let status = fs::read_to_string(format!("/proc/{}/status", of.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let before = memory(&destination);
    // From the very host that is trusted, and from another.
    let crowd: Vec<_> = (0..200).map(|n| connect(&place.site.hosts[n % 2])).collect();
    let grown = memory(&destination) - before;
    assert!(grown < 16 << 10, "{grown} KiB for 200 strangers");
    place.moves(&destination);
    drop(crowd);
}

#[test]
fn a_crowd_that_keeps_coming_does_not_disturb_a_move() {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    let Some(mut place) = place("a crowd that keeps coming") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    // From another host, as those from the same one compete with it.
    let from = place.site.hosts[1].clone();
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
    place.moves(&destination);
    // Before the place goes: on a network that is gone, connecting takes minutes.
    stop.store(true, SeqCst);
    crowd.join().unwrap().unwrap();
    assert!(came.load(SeqCst) > 200);
}

#[test]
fn a_move_is_the_business_of_the_host_that_makes_it() {
    let Some(mut place) = place("questions") else { return };
    let destination = place.vmms[1].receive(7000, &[]).unwrap();
    // Both are trusted; one begins a move, the other asks about it.
    let [anne, bob] = ["anne", "bob"].map(|name| {
        let identity = HostIdentity::generate(10).unwrap();
        trust(&place.vmms[1], &identity, name);
        other_host(&place.vmms[1], identity)
    });
    let id = [5; 16];
    let (mut annes, receiver) = {
        let anne = anne.clone();
        place.site.hosts[0]
            .ns
            .enter(move || {
                let to = format!("tcp://{AT}").parse().unwrap();
                let mut connection =
                    Connection::open(&to, &anne, None, PATIENCE, &Wanted::ALWAYS).unwrap();
                connection.send(&Message::Hello(id)).unwrap();
                match connection.receive(0) {
                    Ok(Incoming::Message(Message::Welcome(_, receiver))) => (connection, receiver),
                    other => panic!("{other:?}"),
                }
            })
            .unwrap()
    };
    use migrate::wire::Outcome;
    let from = &place.site.hosts[0];
    let ask = |who: &Transport| greet(from, who.clone(), Message::Query(id, receiver)).unwrap();
    assert_eq!(ask(&bob), Message::Outcome(id, Outcome::Unknown));
    assert!(!annes.wait(Duration::from_millis(200)).unwrap(), "her move is not disturbed");
    assert_eq!(ask(&anne), Message::Outcome(id, Outcome::Never));
    assert!(annes.wait(PATIENCE).unwrap(), "her question has ended it");
    // A hello that comes again begins nothing.
    match greet(from, anne.clone(), Message::Hello(id)) {
        Ok(Message::Abort(why)) => assert!(why.contains("begun before"), "{why}"),
        other => panic!("{other:?}"),
    }
    place.moves(&destination);
}

/// Listens on port 7005 of the second host, where the relays of these tests are.
fn relay_listener(place: &Place) -> TcpListener {
    place.site.hosts[1].ns.enter(|| TcpListener::bind("10.9.0.2:7005").unwrap()).unwrap()
}

/// Hands bytes on until one side has enough, and returns them.
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

/// Without encryption anybody can record a move; but that is all that it is then.
#[test]
fn a_move_that_was_recorded_runs_nowhere_else() {
    let Some(place) = place("a recorded move") else { return };
    let destination = place.vmms[1].receive(7000, &["--plaintext"]).unwrap();
    let listener = relay_listener(&place);
    let recorder = thread::spawn({
        let host = place.site.hosts[1].clone();
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
    let url = place.vmms[1].url(7005);
    place.vmms[0].json(&["migrate", "d", &url, "--plaintext", "--json"]).unwrap();
    destination.wait_for_line("passes=", PATIENCE).unwrap();
    let recorded = recorder.join().unwrap();
    assert!(recorded.len() > 64 * 4096, "pages and all");
    let other = place.vmms[1].receive(7001, &["--plaintext", "--name", "again"]).unwrap();
    let mut stream =
        place.site.hosts[0].ns.enter(|| TcpStream::connect("10.9.0.2:7001").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It has had enough before it has all.
    let _ = stream.write_all(&recorded);
    assert!(ended(&mut stream));
    other.wait_for_line("made to another receiver", PATIENCE).unwrap();
    let runs = place.vmms[1].json(&["ps", "--json"]).unwrap();
    let names: Vec<_> = runs.as_array().unwrap().iter().map(|vm| vm["name"].clone()).collect();
    assert_eq!(names, ["d"]);
}

/// The link breaks when the VM runs at the destination and before the source has heard of it.
#[test]
#[cfg(debug_assertions)]
fn a_source_that_lost_the_link_at_the_commit_asks_over_tls() {
    use vmm_lite::fail_point::CHOICE;
    let Some(mut place) = place("a late question") else { return };
    let there = &place.vmms[1];
    let mut receive = there.command(&["receive", "--listen", &there.url(7000)]).unwrap();
    receive.env(CHOICE, "destination.running=cut");
    let destination = Process::start(receive).unwrap();
    destination.wait_for_line("listening", PATIENCE).unwrap();
    let listener = relay_listener(&place);
    let host = place.site.hosts[1].clone();
    let relay = thread::spawn(move || {
        // The move, and the question; what was said of it comes back.
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
    place.vmms[0].migrate("d", &place.vmms[1].url(7005)).unwrap();
    assert!(place.vm.wait(PATIENCE).unwrap().success(), "{}", place.vm.output());
    assert!(place.vm.output().contains("asking tcp://10.9.0.2:7005"), "{}", place.vm.output());
    let asked = relay.join().unwrap();
    assert_eq!(asked[0], 22, "a handshake comes first");
    assert!(!asked.windows(4).any(|four| four == b"VMLM"), "nothing is said in the clear");
    let line = destination.wait_for_line("passes=", PATIENCE).unwrap();
    assert!(line.contains("errors=0"), "{line}");
}
