//! Forwards between the hosts of a move, sees every message, and can break the link at any of them.
//!
//! It reads the protocol, so the move must be made in plaintext.

use crate::{
    error::{Doing, Result},
    net::Namespace,
};
use migrate::wire::{HEADER_SIZE, Header, Kind};
use std::{
    collections::HashMap,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

/// A message about to be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Passing {
    /// Whether its direction is from the source to the destination.
    pub to_destination: bool,
    /// Its kind.
    pub kind: Kind,
    /// How many of its kind and direction passed before it, over all connections.
    pub nth: usize,
    /// Its length in bytes, with its header.
    pub len: usize,
}

/// The fate of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It arrives.
    Pass,
    /// It arrives this much later, as do those behind it in that direction; the other direction is
    /// as fast as before.
    Delayed(Duration),
    /// The connection breaks before it.
    CutBefore,
    /// The connection breaks in the middle of it.
    CutWithin,
    /// It arrives, and then the connection breaks.
    CutAfter,
    /// It does not arrive, nor does what follows in that direction; the connection stays open.
    Lost,
}

type Judge = Box<dyn FnMut(&Passing) -> Fate + Send>;

struct Shared {
    judge: Judge,
    passed: HashMap<(bool, Kind), usize>,
}

/// See the module. It runs as long as the process.
#[derive(Debug)]
pub struct Relay {
    port: u16,
}

impl Relay {
    /// Listens on the loopback interface of `ns`, connects to `to` (`IP:PORT`) from there, and
    /// calls `judge` for each message.
    ///
    /// # Errors
    /// The network's error.
    pub fn start(
        ns: &Namespace,
        to: String,
        judge: impl FnMut(&Passing) -> Fate + Send + 'static,
    ) -> Result<Self> {
        let listener = ns.enter(|| TcpListener::bind("127.0.0.1:0"))?.doing("listen as a relay")?;
        let port = listener.local_addr().doing("listen as a relay")?.port();
        let shared =
            Arc::new(Mutex::new(Shared { judge: Box::new(judge), passed: HashMap::new() }));
        let ns = ns.clone();
        thread::spawn(move || {
            ns.enter(move || {
                for source in listener.incoming() {
                    // If the destination is gone, the source sees a closed connection, as on a real
                    // network.
                    let (Ok(source), Ok(destination)) = (source, TcpStream::connect(&to)) else {
                        continue;
                    };
                    pass(&source, &destination, &shared);
                }
            })
        });
        Ok(Self { port })
    }

    /// The URL to which the source sends the VM.
    #[must_use]
    pub fn url(&self) -> String {
        format!("tcp://127.0.0.1:{}", self.port)
    }
}

/// Forwards messages in both directions, on threads of their own.
fn pass(source: &TcpStream, destination: &TcpStream, shared: &Arc<Mutex<Shared>>) {
    for to_destination in [true, false] {
        let ends = (source.try_clone(), destination.try_clone());
        let (Ok(source), Ok(destination)) = ends else { return };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let (from, to) =
                if to_destination { (&source, &destination) } else { (&destination, &source) };
            // However it ends, the connection is over for that direction, or for both.
            let how = match forward(from, to, to_destination, &shared) {
                Ok(()) => Shutdown::Both,
                Err(_) => Shutdown::Write,
            };
            let _ = to.shutdown(how);
            if how == Shutdown::Both {
                let _ = from.shutdown(how);
            }
        });
    }
}

/// Forwards whole messages until one breaks the connection (`Ok`), or the connection ends.
fn forward(
    mut from: &TcpStream,
    mut to: &TcpStream,
    to_destination: bool,
    shared: &Mutex<Shared>,
) -> io::Result<()> {
    let _ = to.set_nodelay(true);
    // Messages to a host that is gone are judged as well: their sender does not know that it is
    // gone.
    let mut gone = false;
    loop {
        let mut message = vec![0; HEADER_SIZE];
        from.read_exact(&mut message)?;
        let (header, _) = message.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
        let header = Header::decode(header).map_err(io::Error::other)?;
        message.resize(HEADER_SIZE + header.length as usize, 0);
        from.read_exact(&mut message[HEADER_SIZE..])?;
        let fate = {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let count = shared.passed.entry((to_destination, header.kind)).or_default();
            let nth = *count;
            *count += 1;
            let len = message.len();
            (shared.judge)(&Passing { to_destination, kind: header.kind, nth, len })
        };
        match fate {
            Fate::Pass => gone = gone || to.write_all(&message).is_err(),
            Fate::Delayed(time) => {
                thread::sleep(time);
                gone = gone || to.write_all(&message).is_err();
            }
            Fate::CutBefore => return Ok(()),
            Fate::CutWithin => {
                to.write_all(&message[..message.len() / 2])?;
                return Ok(());
            }
            Fate::CutAfter => {
                to.write_all(&message)?;
                return Ok(());
            }
            Fate::Lost => return io::copy(&mut from, &mut io::sink()).map(drop),
        }
    }
}
