//! std::sync::mpsc.

use crate::check::{Outcome, join};
use crate::{checks, ensure, ensure_eq};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError, TrySendError};
use std::thread;
use std::time::{Duration, Instant};

checks!["channels": unbounded_keeps_order, many_senders, rendezvous, bounded_blocks, timeouts,
    disconnect_is_seen, wakes_a_waiting_receiver];

fn unbounded_keeps_order() -> Outcome {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || (0..10_000u32).try_for_each(|n| sender.send(n)).is_ok());
    ensure!((0..).zip(receiver.iter()).all(|(want, got): (u32, _)| want == got), "out of order");
    ensure!(join(thread)?, "a send failed");
    Ok(())
}

fn many_senders() -> Outcome {
    let (sender, receiver) = mpsc::channel();
    for n in 0..20u64 {
        let sender = sender.clone();
        thread::spawn(move || (0..100u64).try_for_each(|m| sender.send(n * 100 + m)).is_ok());
    }
    drop(sender);
    let mut got: Vec<u64> = receiver.iter().collect();
    got.sort_unstable();
    ensure!(got == (0..2000).collect::<Vec<_>>(), "{} of 2000 messages arrived", got.len());
    Ok(())
}

fn rendezvous() -> Outcome {
    let (sender, receiver) = mpsc::sync_channel(0);
    let thread = thread::spawn(move || sender.send(1).map(|()| Instant::now()));
    thread::sleep(Duration::from_millis(20));
    let received = Instant::now();
    ensure_eq!(receiver.recv()?, 1);
    let sent = join(thread)??;
    let early = received.saturating_duration_since(sent);
    ensure!(
        early.is_zero(),
        "the sender did not wait for the receiver, but went on {early:?} before"
    );
    Ok(())
}

fn bounded_blocks() -> Outcome {
    let (sender, receiver) = mpsc::sync_channel(2);
    sender.send(1)?;
    sender.send(2)?;
    ensure!(matches!(sender.try_send(3), Err(TrySendError::Full(3))), "a full channel took more");
    let thread = thread::spawn(move || (3..100).try_for_each(|n| sender.send(n)).is_ok());
    ensure_eq!(receiver.iter().collect::<Vec<i32>>(), (1..100).collect::<Vec<i32>>());
    ensure!(join(thread)?, "a send failed");
    Ok(())
}

fn timeouts() -> Outcome {
    let (sender, receiver) = mpsc::channel::<u8>();
    ensure_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    let start = Instant::now();
    ensure_eq!(receiver.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
    let took = start.elapsed();
    ensure!((20..60_000).contains(&took.as_millis()), "20 ms lasted {took:?}");
    drop(sender);
    ensure_eq!(receiver.recv_timeout(Duration::from_secs(30)), Err(RecvTimeoutError::Disconnected));
    Ok(())
}

fn disconnect_is_seen() -> Outcome {
    let (sender, receiver) = mpsc::channel::<u8>();
    let waiting = thread::spawn(move || receiver.recv().is_err());
    thread::sleep(Duration::from_millis(5));
    drop(sender);
    ensure!(join(waiting)?, "a receiver without senders received");
    let (sender, receiver) = mpsc::channel();
    drop(receiver);
    ensure!(sender.send(1).is_err(), "a sender without receiver sent");
    Ok(())
}

fn wakes_a_waiting_receiver() -> Outcome {
    let (request, requests) = mpsc::channel::<mpsc::Sender<u32>>();
    let server = thread::spawn(move || {
        (0..).zip(requests.iter()).try_for_each(|(n, reply): (u32, _)| reply.send(n)).is_ok()
    });
    for n in 0..500 {
        let (reply, answer) = mpsc::channel();
        request.send(reply)?;
        ensure_eq!(answer.recv()?, n);
    }
    drop(request);
    ensure!(join(server)?, "an answer could not be sent");
    Ok(())
}
