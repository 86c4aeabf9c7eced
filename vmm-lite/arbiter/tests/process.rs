//! The two processes: what one makes of the other's end, silence and nonsense.

mod common;

use arbiter::{
    Arb, ArbiterClient, Ask, Error, Outcome, Reply, SetId, Swap, Version, in_thread, pair, serve,
};
use common::{LONG, first, random};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{MsgFlags, recv, send},
};
use std::{
    env, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const SHORT: Duration = Duration::from_millis(50);

fn swap() -> Swap {
    Swap::new(Version::NONE, first()).unwrap()
}

fn file() -> (tempfile::TempDir, Arb) {
    let dir = tempfile::tempdir().unwrap();
    let arb = format!("file:{}", dir.path().display()).parse().unwrap();
    (dir, arb)
}

/// Waits for an answer by the descriptor.
fn next(client: &mut ArbiterClient) -> (arbiter::RequestId, Result<Reply, Error>) {
    loop {
        if let Some(answer) = client.answer() {
            return answer;
        }
        let mut fds = [PollFd::new(client.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000_u16)), Ok(1), "no answer");
    }
}

#[test]
fn requests_are_answered_while_the_caller_does_other_things() {
    let (_dir, arb) = file();
    let mut client = in_thread(arb).unwrap();
    let swaps: Vec<_> = (0..8).map(|_| swap()).collect();
    let ids: Vec<_> =
        swaps.iter().map(|s| client.send(Ask::Swap(s.clone()), LONG).unwrap()).collect();
    // A request that waits for its answer keeps the others' answers.
    assert_eq!(client.read(SetId(random()), LONG), Ok(None));
    let mut answered: Vec<_> = ids
        .iter()
        .map(|_| {
            let (id, reply) = next(&mut client);
            assert!(matches!(reply, Ok(Reply::Changed(Outcome::Won(_)))), "{reply:?}");
            id
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, ids);
    assert_eq!(client.answer(), None);
}

#[test]
fn a_process_that_is_silent_delays_its_client_by_the_deadline_only() {
    let (ours, _theirs) = pair().unwrap();
    let mut client = ArbiterClient::new(ours);
    assert!(matches!(client.read(SetId(random()), SHORT), Err(Error::Unreachable(_))));
    let error = client.swap(&swap(), SHORT).unwrap_err();
    assert!(error.is_ambiguous(), "{error}");
}

#[test]
fn requests_without_answers_are_bounded() {
    let (ours, _theirs) = pair().unwrap();
    let mut client = ArbiterClient::new(ours);
    let sent = (0..1000).map_while(|_| client.send(Ask::Swap(swap()), SHORT).ok()).count();
    assert_eq!(sent, 16);
    assert_eq!(client.send(Ask::Read(SetId(random())), SHORT), Err(Error::Busy(16)));
}

#[test]
fn the_end_of_the_process_answers_every_request() {
    let (ours, theirs) = pair().unwrap();
    let mut client = ArbiterClient::new(ours);
    let change = client.send(Ask::Swap(swap()), LONG).unwrap();
    let read = client.send(Ask::Read(SetId(random())), LONG).unwrap();
    drop(theirs);
    let (id, reply) = next(&mut client);
    assert!(id == change && reply.unwrap_err().is_ambiguous());
    let (id, reply) = next(&mut client);
    assert!(id == read && !reply.unwrap_err().is_ambiguous());
    assert_eq!(client.answer(), None);
    // What was never sent has not happened.
    assert!(matches!(client.swap(&swap(), LONG), Err(Error::Unreachable(_))));
}

#[test]
fn an_invalid_answer_ends_the_connection() {
    for answer in [&b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..], &[0; 8300]] {
        let (ours, theirs) = pair().unwrap();
        let mut client = ArbiterClient::new(ours);
        client.send(Ask::Swap(swap()), LONG).unwrap();
        send(theirs.as_raw_fd(), answer, MsgFlags::empty()).unwrap();
        assert!(next(&mut client).1.unwrap_err().is_ambiguous());
    }
}

#[test]
fn an_invalid_request_ends_the_process() {
    let (_dir, arb) = file();
    for request in [&b"\xff"[..], b"a will", &[0; 40], &[7; 9000]] {
        let (ours, theirs) = pair().unwrap();
        let arb = arb.clone();
        let server = thread::spawn(move || serve(theirs, &arb));
        send(ours.as_raw_fd(), request, MsgFlags::empty()).unwrap();
        let error = server.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData, "{request:?}: {error}");
        end_of(&ours);
    }
}

fn end_of(socket: &OwnedFd) {
    assert_eq!(recv(socket.as_raw_fd(), &mut [0; 8], MsgFlags::empty()), Ok(0));
}

#[test]
fn the_process_ends_with_its_client() {
    let (_dir, arb) = file();
    let (ours, theirs) = pair().unwrap();
    let server = thread::spawn(move || serve(theirs, &arb));
    let mut client = ArbiterClient::new(ours);
    assert_eq!(client.read(SetId(random()), LONG), Ok(None));
    drop(client);
    server.join().unwrap().unwrap();
}

#[test]
fn a_client_that_takes_no_answer_does_not_end_the_process() {
    let (_dir, arb) = file();
    let mut client = in_thread(arb).unwrap();
    for _ in 0..50 {
        let sent: Vec<_> =
            (0..16).map(|_| client.send(Ask::Read(SetId(random())), LONG).unwrap()).collect();
        for _ in sent {
            assert_eq!(next(&mut client).1, Ok(Reply::Found(None)));
        }
    }
}

/// Set for the process that talks to the arbiter: which.
const ARBITER: &str = "VMM_LITE_ARBITER_SERVES";

/// That process in [`a_process_that_is_killed_is_replaced`]; no test of its own.
#[test]
fn helper() {
    let Ok(arb) = env::var(ARBITER) else { return };
    let socket = io::stdin().as_fd().try_clone_to_owned().unwrap();
    serve(socket, &arb.parse().unwrap()).unwrap();
}

#[test]
fn a_process_that_is_killed_is_replaced() {
    let (_dir, arb) = file();
    let start = || -> (Child, ArbiterClient) {
        let (ours, theirs) = pair().unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "helper", "--nocapture"]).env(ARBITER, arb.to_string());
        let child = command.stdin(theirs).stdout(Stdio::null()).spawn().unwrap();
        (child, ArbiterClient::new(ours))
    };
    let mut record = first();
    let mut expected = Version::NONE;
    let mut ambiguous = 0;
    for _ in 0..40 {
        let swap = Swap::new(expected, record.clone()).unwrap();
        let (mut child, mut client) = start();
        // It has started when it answers.
        client.read(record.set, LONG).unwrap();
        client.send(Ask::Swap(swap.clone()), LONG).unwrap();
        thread::sleep(Duration::from_micros(fastrand::u64(..2000)));
        child.kill().unwrap();
        child.wait().unwrap();
        let reply = next(&mut client).1;
        let won = match reply {
            Ok(Reply::Changed(Outcome::Won(version))) => version,
            Err(e) if e.is_ambiguous() => {
                ambiguous += 1;
                let (mut child, mut client) = start();
                let outcome = client.swap(&swap, LONG);
                let Ok(Outcome::Won(version)) = outcome else { panic!("{outcome:?}") };
                drop(client);
                assert!(child.wait().unwrap().success());
                version
            }
            other => panic!("{other:?}"),
        };
        // Once, whether it was repeated or not.
        assert_eq!(won.0, expected.0 + 1);
        record = record.next(record.active, []);
        expected = won;
    }
    assert!(ambiguous > 0, "no kill came before its answer");
}
