//! The process that talks to the arbiter.

use super::{
    protocol::{Answer, Ask, MESSAGE_MAX, REQUESTS_MAX, Reply, Request, decode, encode},
    socket::{put, take},
};
use crate::{
    arb::Arb,
    error::Error,
    record::{MemberId, SetId},
    store::{Presence, Store},
};
use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinSet,
};

/// Most members that one process announces.
const ANNOUNCED_MAX: usize = 16;
/// Threads for a file arbiter. Each may hang as long as its storage does.
const THREADS: usize = 4;

type Announced = Arc<Mutex<HashMap<(SetId, MemberId), Presence>>>;

/// Answers the requests of an [`ArbiterClient`](super::ArbiterClient) at the other end of `socket`,
/// until that end is closed. Blocks; it needs the network or the shared file system, and no
/// privilege.
///
/// An arbiter that cannot be used (a missing file with a certificate, no such directory) is no
/// error here: each request is answered with the reason.
///
/// # Errors
/// The socket's, and [`io::ErrorKind::InvalidData`] for a request that cannot be decoded.
pub fn serve(socket: OwnedFd, arb: &Arb) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()?;
    let store = Store::open(arb);
    let ended = runtime.block_on(requests(socket, store));
    // A thread that hangs in the storage ends with the process.
    runtime.shutdown_background();
    ended
}

async fn requests(socket: OwnedFd, store: Result<Store, Error>) -> io::Result<()> {
    let both = Interest::READABLE | Interest::WRITABLE;
    // SAFETY: an `OwnedFd` is open, and stays the same descriptor, for as long as it exists.
    let socket = unsafe { AsyncFd::register_with_interest(socket, both) }?;
    let announced = Announced::default();
    let mut running = JoinSet::new();
    loop {
        let message = tokio::select! {
            biased;
            Some(ended) = running.join_next(), if !running.is_empty() => {
                let answer: Answer = ended.map_err(io::Error::other)?;
                let bytes = encode(&answer)?;
                // At most REQUESTS_MAX answers wait here, so that a client that takes none is not
                // fed without bounds.
                socket.async_io(Interest::WRITABLE, |socket| put(socket, &bytes)).await?;
                continue;
            }
            message = socket.async_io(Interest::READABLE, take),
                if running.len() < REQUESTS_MAX => message?,
        };
        if message.is_empty() {
            return Ok(());
        }
        if message.len() > MESSAGE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the request is too long"));
        }
        let request: Request = decode(&message)?;
        let deadline = Instant::now() + Duration::from_millis(request.within_ms.into());
        let (store, announced) = (store.clone(), Arc::clone(&announced));
        running.spawn(async move {
            let reply = match store {
                Ok(store) => answer(&store, request.ask, deadline, &announced).await,
                Err(e) => Err(e),
            };
            Answer { id: request.id, reply: reply.map_err(Error::shortened) }
        });
    }
}

async fn answer(
    store: &Store,
    ask: Ask,
    deadline: Instant,
    announced: &Announced,
) -> Result<Reply, Error> {
    if !ask.is_valid() {
        return Err(Error::Refused("too many members in one request".into()));
    }
    Ok(match ask {
        Ask::Read(set) => Reply::Found(store.read(set, deadline).await?),
        Ask::Swap(swap) => Reply::Changed(store.swap(swap, deadline).await?),
        Ask::Forget(set, version) => Reply::Changed(store.forget(set, version, deadline).await?),
        Ask::Announce(set, member) => {
            let known = |announced: &Announced| {
                let announced = announced.lock().unwrap_or_else(PoisonError::into_inner);
                (announced.contains_key(&(set, member)), announced.len() >= ANNOUNCED_MAX)
            };
            match known(announced) {
                (true, _) => return Ok(Reply::Announced),
                (_, true) => return Err(Error::Refused("too many announced members".into())),
                _ => {}
            }
            let presence = store.announce(set, member, deadline).await?;
            let mut announced = announced.lock().unwrap_or_else(PoisonError::into_inner);
            announced.insert((set, member), presence);
            Reply::Announced
        }
        Ask::Present(set, members) => Reply::Present(store.present(set, members, deadline).await?),
    })
}
