//! Keeps the source informed while it waits: it does not tolerate silence.

use crate::{
    host::confine::Thread,
    migration::connection::{Connection, LinkError},
};
use migrate::{destination::PREPARING, wire::Message};
use std::{
    convert::Infallible,
    io,
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
};

/// Runs `prepare` on the calling thread, while another thread tells the source that this is in
/// progress. Returns the results of both.
///
/// # Errors
/// If the host refuses a thread; nothing was done then.
pub fn while_telling<T>(
    connection: Option<&mut Connection>,
    prepare: impl FnOnce() -> T,
) -> io::Result<(T, Result<(), LinkError>)> {
    let (done, until) = channel();
    thread::scope(|scope| {
        let telling = thread::Builder::new().name(Thread::Receive.name().into());
        let telling = telling.spawn_scoped(scope, || tell(connection, until))?;
        let prepared = prepare();
        drop(done);
        // Nothing in it panics; a source that is told nothing disconnects, which is noticed.
        Ok((prepared, telling.join().unwrap_or(Ok(()))))
    })
}

fn tell(connection: Option<&mut Connection>, until: Receiver<Infallible>) -> Result<(), LinkError> {
    let Some(connection) = connection else { return Ok(()) };
    while until.recv_timeout(PREPARING) == Err(RecvTimeoutError::Timeout) {
        connection.send(&Message::Preparing)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::connection::{Incoming, Transport};
    use std::{
        net::{TcpListener, TcpStream},
        sync::Arc,
        time::Duration,
    };

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn pair() -> [Connection; 2] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let here = listener.accept().unwrap().0;
        [here, there].map(|stream| {
            Connection::accept(Arc::new(stream), &Transport::Plaintext, TIMEOUT).unwrap()
        })
    }

    #[test]
    fn the_source_is_told_while_preparation_runs_and_no_longer() {
        let [mut here, mut there] = pair();
        // It lasts until three messages have arrived.
        let (told, _) = while_telling(Some(&mut here), || {
            (0..3)
                .filter(|_| {
                    let came = there.receive(0);
                    matches!(came, Ok(Incoming::Message(Message::Preparing)))
                })
                .count()
        })
        .unwrap();
        assert_eq!(told, 3);
        here.send(&Message::Ready).unwrap();
        // One more may have been in transit.
        let came = (0..2).find_map(|_| match there.receive(0).unwrap() {
            Incoming::Message(Message::Preparing) => None,
            Incoming::Message(other) => Some(other),
            Incoming::Pages(_) => panic!("pages"),
        });
        assert_eq!(came, Some(Message::Ready));
    }

    #[test]
    fn a_closed_connection_is_reported() {
        let [mut here, there] = pair();
        drop(there);
        let (_done, until) = channel();
        let told = tell(Some(&mut here), until);
        assert!(matches!(told, Err(LinkError::Io(_))), "{told:?}");
    }
}
