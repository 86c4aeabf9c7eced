//! The request `migrate` of the control socket.

pub mod identity;
pub mod lockstep;
pub mod options;

use super::{reports, server::Reply};
use api::{Response, progress::Progress as Told, verb};
use std::{fs::File, io, net::SocketAddr, os::fd::RawFd};
use vmm::{
    host::confine::jail::jailed,
    migration::{
        address::{Address, AddressError},
        connector::Dialer,
        progress::{MoveObserver, Moved, Progress},
        source,
    },
    vm::{Observer, Vm},
};

/// How many addresses of a destination are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a move failed.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An invalid address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// No means to prove this host's identity, or to connect.
    #[error("{0}")]
    Transport(String),
    /// The host's identity.
    #[error(transparent)]
    Identity(#[from] vmm::identity::Error),
    /// An invalid option.
    #[error(transparent)]
    Options(#[from] options::Wrong),
    /// The move itself.
    #[error(transparent)]
    Move(#[from] vmm::migration::Error),
}

/// Moves `vm` away. The observer answers the request when the VM has moved.
///
/// # Errors
/// [`Error`]: the request has not been answered.
pub fn serve(
    vm: &Vm,
    request: &verb::Migrate,
    mut files: Vec<File>,
    reply: &mut Reply,
) -> Result<(), Error> {
    let options = options::of(request)?;
    let dialer = dialer_in(request.connector, &mut files)?;
    let identity = request.identity.as_ref();
    let transport = identity::from_request(identity, request.plaintext, files)?;
    let to = address_in(&request.to, request.addresses.as_deref())?.through(dialer);
    Ok(source::migrate(vm, to, transport, options, reply)?)
}

impl Observer<Progress> for Reply {
    fn progress(&mut self, progress: Progress) -> io::Result<()> {
        self.tell(Told::Event(reports::event(progress)))
    }

    fn fd(&self) -> RawFd {
        self.stream_fd()
    }
}

impl MoveObserver for Reply {
    fn moved(&mut self, moved: Moved) {
        self.answer(Ok(Response::Moved(Box::new(reports::moved(moved)))));
    }
}

/// The connector for a process that cannot connect: the last of the files that came with the
/// request.
pub(super) fn dialer_in(connector: bool, files: &mut Vec<File>) -> Result<Option<Dialer>, Error> {
    let dialer = if connector { files.pop().map(Dialer::new) } else { None };
    if dialer.is_none() && jailed().is_some_and(|jailed| jailed.network) {
        let why = "the VM is in a jail without a network, and nothing came with the request that \
            connects for it: \
                   `vmm-lite migrate` of the same version sends that";
        return Err(Error::Transport(why.into()));
    }
    Ok(dialer)
}

/// The destination in the request: `to`, and in `addresses` the addresses that it resolves to.
pub(super) fn address_in(to: &str, addresses: Option<&[SocketAddr]>) -> Result<Address, Error> {
    let to: Address = to.parse()?;
    let Some(addresses) = addresses else { return Ok(to) };
    Ok(to.found_at(addresses.iter().copied().take(ADDRESSES_MAX).collect()))
}
