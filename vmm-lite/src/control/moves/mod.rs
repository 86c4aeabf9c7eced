//! The request `migrate` of the control socket.

pub mod identity;
pub mod options;

use super::server::Reply;
use api::Request;
use serde_json::Value;
use std::{fs::File, io, os::fd::RawFd};
use vmm::{
    host::confine::jail::jailed,
    identity::PublicKey,
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

/// Moves `vm` away, and returns the answer when the move is done or has failed.
pub fn serve(vm: &Vm, request: &Request, mut files: Vec<File>, reply: &mut Reply) {
    let members = request.members();
    let moved = options::from_request(members).map_err(Error::from).and_then(|options| {
        let dialer = dialer_in(request, &mut files)?;
        let transport = identity::from_request(members, files)?;
        let to = address_in(request)?.through(dialer);
        Ok(source::migrate(vm, to, transport, options, reply)?)
    });
    if let Err(e) = moved {
        reply.answer(&Err(Box::new(e)));
    }
}

impl Observer<Progress> for Reply {
    fn progress(&mut self, progress: Progress) -> io::Result<()> {
        self.tell(&progress)
    }

    fn fd(&self) -> RawFd {
        self.stream_fd()
    }
}

impl MoveObserver for Reply {
    fn moved(&mut self, moved: Moved) {
        let answer = || {
            let Moved { to, peer, paused, report } = moved;
            let mut value = serde_json::to_value(report)?;
            value["to"] = to.to_string().into();
            value["paused"] = paused.into();
            value["destination_key"] = peer.map(|key| PublicKey(key).to_string()).into();
            Ok(value)
        };
        self.answer(&answer());
    }
}

/// The connector for a process that cannot connect: the last of the files that came with the
/// request.
fn dialer_in(request: &Request, files: &mut Vec<File>) -> Result<Option<Dialer>, Error> {
    let dialer = if request.flag("connector") { files.pop().map(Dialer::new) } else { None };
    if dialer.is_none() && jailed().is_some_and(|jailed| jailed.network) {
        let why = "the VM is in a jail without a network, and nothing came with the request that \
            connects for it: \
                   `vmm-lite migrate` of the same version sends that";
        return Err(Error::Transport(why.into()));
    }
    Ok(dialer)
}

/// The destination in the request: `to`, and in `addresses` the addresses that it resolves to.
fn address_in(request: &Request) -> Result<Address, Error> {
    let to = request.text("to").unwrap_or_default();
    let to: Address = to.parse()?;
    let addresses = request.members().get("addresses").and_then(Value::as_array);
    let Some(addresses) = addresses else { return Ok(to) };
    let addresses = addresses.iter().filter_map(|a| a.as_str()?.parse().ok()).take(ADDRESSES_MAX);
    Ok(to.found_at(addresses.collect()))
}
