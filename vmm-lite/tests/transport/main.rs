//! Connections between hosts that trust each other, and between hosts that do not.

mod impostors;

use migrate::wire::{HEADER_SIZE, Header, Kind, Message};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};
use vmm::vm::CallOff;
use vmm::{
    identity::{HostIdentity, PublicKey, TrustStore, Trusted},
    migration::{
        connection::{Connection, Incoming, LinkError, Transport},
        tls::Credentials,
    },
};
use vmm_lite_lab::accept::accept;

use vmm_lite_lab::vmm::TIMEOUT;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn host() -> Arc<HostIdentity> {
    Arc::new(HostIdentity::generate(10).unwrap())
}

fn trusting(me: &Arc<HostIdentity>, hosts: &[(PublicKey, bool, bool)]) -> Transport {
    let mut trusted = TrustStore::default();
    for (n, &(key, send, receive)) in hosts.iter().enumerate() {
        trusted.add(Trusted { key, name: format!("h{n}"), send, receive, at: Vec::new() }).unwrap();
    }
    Transport::Tls(Credentials::with_key(me, Arc::new(trusted)).unwrap())
}

/// Two correctly configured hosts: the first may send to the second.
fn friends() -> (Transport, Transport) {
    let (a, b) = (host(), host());
    (trusting(&a, &[(b.public(), false, true)]), trusting(&b, &[(a.public(), true, false)]))
}

/// The result on both sides of a connection on which the first greets and the second answers.
fn greet(
    source: &Transport,
    destination: &Transport,
) -> (Result<Connection, Box<dyn std::error::Error>>, Result<Connection, LinkError>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let destination = destination.clone();
    let there = thread::spawn(move || {
        let stream = Arc::new(accept(&listener).unwrap());
        let answer = || {
            let mut connection = Connection::accept(Arc::clone(&stream), &destination, TIMEOUT)?;
            match connection.receive(0)? {
                Incoming::Message(Message::Hello(id)) => {
                    connection.send(&Message::Welcome(id, [2; 16]))?
                }
                other => panic!("{other:?}"),
            }
            connection.known();
            Ok(connection)
        };
        let answered = answer();
        if answered.is_err() {
            // The last message arrives only if nothing is left unread.
            let _ = stream.shutdown(Shutdown::Write);
            let _ = (&*stream).read_to_end(&mut Vec::new());
        }
        answered
    });
    let open = || {
        let mut connection = Connection::open(&to, source, None, TIMEOUT, &CallOff::NEVER)?;
        connection.send(&Message::Hello([1; 16]))?;
        match connection.receive(0)? {
            Incoming::Message(Message::Welcome(..)) => Ok(connection),
            Incoming::Message(Message::Abort(why)) => Err(why.into()),
            other => panic!("{other:?}"),
        }
    };
    let here = open();
    (here, there.join().unwrap())
}

/// The errors on both sides, as text.
fn refused(source: &Transport, destination: &Transport) -> (String, String) {
    let began = Instant::now();
    let (here, there) = greet(source, destination);
    assert!(began.elapsed() < TIMEOUT / 2, "both know at once");
    (here.unwrap_err().to_string(), there.unwrap_err().to_string())
}

fn says(said: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(said.contains(part), "no {part:?} in: {said}"));
}

#[test]
fn hosts_that_trust_each_other_talk() {
    let (source, destination) = friends();
    let (here, there) = greet(&source, &destination);
    let (here, there) = (here.unwrap(), there.unwrap());
    let key = |of: &Transport| match of {
        Transport::Tls(credentials) => credentials.certificate.public().0,
        Transport::Plaintext => panic!("not these"),
    };
    assert_eq!(here.peer(), Some(key(&destination)));
    assert_eq!(there.peer(), Some(key(&source)));
}

#[test]
fn messages_of_every_size_arrive_whole_in_both_directions() {
    let (source, destination) = friends();
    for (source, destination) in
        [(source, destination), (Transport::Plaintext, Transport::Plaintext)]
    {
        let (here, there) = greet(&source, &destination);
        let (mut here, mut there) = (here.unwrap(), there.unwrap());
        let sizes =
            [0, 1, 15, 16, 17, 4096, 16_383, 16_384, 16_385, 65_536, 262_144, (1 << 20) - 1];
        let state = |size: usize| Message::State((0..size).map(|n| (n % 253) as u8).collect());
        let echo = thread::spawn(move || {
            for _ in 0..2 * sizes.len() {
                let Incoming::Message(message) = there.receive(0).unwrap() else { panic!("pages") };
                there.send(&message).unwrap();
            }
        });
        for size in sizes {
            here.send(&state(size)).unwrap();
            assert!(here.wait(TIMEOUT).unwrap());
            match here.receive(0).unwrap() {
                Incoming::Message(message) => assert_eq!(message, state(size)),
                Incoming::Pages(_) => panic!("pages"),
            }
        }
        // Many in one write: data that was read ahead counts as readable.
        let many: Vec<u8> = sizes.iter().flat_map(|_| Message::RoundEnd(7).encode()).collect();
        here.send_raw(&many).unwrap();
        echo.join().unwrap();
        for _ in sizes {
            assert!(here.wait(Duration::ZERO).unwrap());
            assert!(matches!(here.receive(0), Ok(Incoming::Message(Message::RoundEnd(7)))));
        }
        assert!(here.wait(TIMEOUT).unwrap(), "the end can be received");
        assert!(matches!(here.receive(0), Err(LinkError::Closed)));
    }
}

#[test]
fn a_source_that_is_not_trusted_is_told_what_to_do() {
    let (a, b) = (host(), host());
    let source = trusting(&a, &[(b.public(), true, true)]);
    let (here, there) = refused(&source, &trusting(&b, &[(host().public(), true, true)]));
    says(&here, &["does not trust this one's key", &format!("identity trust {}", a.public())]);
    says(&there, &["is not trusted here", &a.public().to_string()]);
}

#[test]
fn a_destination_that_is_not_trusted_gets_nothing() {
    let (a, b) = (host(), host());
    let destination = trusting(&b, &[(a.public(), true, true)]);
    let (here, there) = refused(&trusting(&a, &[]), &destination);
    says(&here, &["is not trusted here", &b.public().to_string()]);
    says(&there, &["does not trust this one's key"]);
}

#[test]
fn trust_is_for_one_direction() {
    let (a, b) = (host(), host());
    let (here, there) = refused(
        &trusting(&a, &[(b.public(), true, true)]),
        &trusting(&b, &[(a.public(), false, true)]),
    );
    says(&here, &["not to send VMs there"]);
    says(&there, &["h0", "not to send VMs here"]);
    let (here, there) = refused(
        &trusting(&a, &[(b.public(), true, false)]),
        &trusting(&b, &[(a.public(), true, true)]),
    );
    says(&here, &["not to receive VMs from here"]);
    says(&there, &["not to receive VMs from there"]);
}

#[test]
fn certificates_are_refused_outside_their_validity() {
    let now = SystemTime::now();
    for (validity, what) in
        [(now - DAY * 9..now - DAY, "has expired"), (now + DAY..now + DAY * 9, "is not valid yet")]
    {
        let (old, b) = (Arc::new(HostIdentity::generate_for(validity).unwrap()), host());
        let (there, here) = (
            trusting(&b, &[(old.public(), true, true)]),
            trusting(&old, &[(b.public(), true, true)]),
        );
        let (source, destination) = refused(&here, &there);
        says(&source, &["has expired or is not valid yet", "identity renew"]);
        says(&destination, &[what, "identity renew"]);
        let (source, destination) = refused(&there, &here);
        says(&source, &[what]);
        says(&destination, &["has expired or is not valid yet"]);
    }
}

#[test]
fn plaintext_and_tls_do_not_wait_for_each_other() {
    let (source, destination) = friends();
    let (here, there) = refused(&Transport::Plaintext, &destination);
    says(&here, &["this destination takes TLS only"]);
    says(&there, &["the other side speaks plaintext"]);
    // The listener's own answer to TLS is tested elsewhere: see `migration::destination`.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = format!("tcp://{}", listener.local_addr().unwrap()).parse().unwrap();
    let there = thread::spawn(move || {
        let stream = Arc::new(accept(&listener).unwrap());
        let mut connection = Connection::accept(stream, &Transport::Plaintext, TIMEOUT).unwrap();
        let said = connection.receive(0).unwrap_err().to_string();
        connection.send(&Message::Abort("plaintext only".into())).unwrap();
        said
    });
    let said =
        Connection::open(&to, &source, None, TIMEOUT, &CallOff::NEVER).unwrap_err().to_string();
    says(&said, &["the other side speaks plaintext"]);
    says(&there.join().unwrap(), &["the peer speaks TLS"]);
}

/// What an unauthenticated peer may cost, and for how long.
#[test]
fn announced_sizes_are_not_trusted() {
    let peer = |bytes: Vec<u8>| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.write_all(&bytes).unwrap();
        let there = Arc::new(accept(&listener).unwrap());
        let mut connection =
            Connection::accept(there, &Transport::Plaintext, Duration::from_millis(300)).unwrap();
        connection.receive(0).unwrap_err()
    };
    let header = |kind, length| Header { kind, length, checksum: 0 }.encode().to_vec();
    assert!(matches!(peer(header(Kind::State, 1 << 20)), LinkError::First(_)));
    assert!(matches!(peer(header(Kind::Pages, 4096)), LinkError::First(_)));
    assert!(matches!(peer(header(Kind::State, u32::MAX)), LinkError::Wire(_)));
    assert!(matches!(peer(header(Kind::Hello, 16)), LinkError::Slow));
    assert!(matches!(peer(header(Kind::Hello, 16)[..HEADER_SIZE - 1].to_vec()), LinkError::Slow));
    assert!(matches!(peer(vec![0; 64]), LinkError::Wire(_)));
}

#[test]
fn a_message_sent_byte_by_byte_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let there = Arc::new(accept(&listener).unwrap());
    let dripping = thread::spawn(move || {
        let hello = Message::Hello([1; 16]).encode();
        // Each byte arrives well within the timeout of one read.
        hello.chunks(1).all(|byte| {
            thread::sleep(Duration::from_millis(100));
            stream.write_all(byte).is_ok()
        })
    });
    let timeout = Duration::from_millis(300);
    let mut connection = Connection::accept(there, &Transport::Plaintext, timeout).unwrap();
    // If each byte restarted the timeout the message would arrive.
    assert!(matches!(connection.receive(0), Err(LinkError::Slow)));
    drop(connection);
    assert!(!dripping.join().unwrap(), "it is told");
}
