//! Moving a VM between hosts: the `migrate` crate's machines, driven with sockets, guest memory and clocks.
//!
//! - [`source`]: moves a VM away, at the request of `vmm-lite migrate`
//! - [`destination`]: takes one in, for `vmm-lite receive`
//! - [`connection`]: messages over TCP, encrypted or not; [`tls`]: between hosts that trust each other's keys
//! - [`credentials`]: who this host is in a move, from its identity's directory or from a request
//! - [`connector`]: connects for a VM in a jail
//! - [`listener`]: who may come in, and how many
//! - `handover`: the VM's state, and what goes with it
//! - `brace`: what can be got ready before the guest stands
//! - [`progress`]: what is told of a move that is under way
//! - [`poll`]: waiting for several descriptors at once; [`wanted`]: for as long as somebody wants what is waited for
//! - [`address`](self::address): where to, such as `tcp://10.9.0.2:7000`

pub mod address;
mod brace;
pub mod connection;
pub mod connector;
pub mod credentials;
pub mod destination;
mod handover;
mod inbox;
pub mod listener;
pub mod offered;
pub mod poll;
pub mod progress;
mod reach;
pub mod source;
pub mod tls;
pub mod wanted;

use crate::{
    confine::jail::jailed,
    control::{Reply, Request},
    vm::{Error as VmError, MoveOutcome, Vm},
};
use connection::LinkError;
use connector::Dialer;
use migrate::source::Failure;
use serde_json::Value;
use source::options::Options;
use std::{fs::File, time::Duration};

/// How many addresses of a destination are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a move was not made.
#[derive(thiserror::Error, Debug)]
pub enum Error {
    /// An address that is none.
    #[error(transparent)]
    Address(#[from] address::AddressError),
    /// The link.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// What the machine says.
    #[error(transparent)]
    Failed(#[from] migrate::source::Failure),
    /// The VM.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// No event descriptor.
    #[error("cannot wake the thread of the move")]
    Event(#[source] std::io::Error),
    /// No random numbers for the move's name.
    #[error("cannot draw random numbers for the move")]
    Random(#[source] std::io::Error),
    /// Neither a move nor a question.
    #[error("this begins with neither a move nor a question")]
    Nonsense,
    /// A move that was begun before.
    #[error("this move was begun before: somebody repeats what was said then")]
    Replayed,
    /// Nothing to prove who this host is by.
    #[error("{0}")]
    Transport(String),
    /// The host's identity.
    #[error(transparent)]
    Identity(#[from] crate::identity::Error),
    /// What was asked for makes no sense.
    #[error(transparent)]
    Options(#[from] source::options::Wrong),
    /// Memory of the VM is not here, and does not come in time.
    #[error(transparent)]
    Incomplete(#[from] crate::vm::Incomplete),
}

/// Serves the request `migrate` of the control socket: moves `vm` away, and answers when that is done or has failed.
pub fn request(vm: &Vm, request: &Request, mut files: Vec<File>, reply: &mut Reply) {
    let members = request.members();
    let moved = Options::from_request(members).map_err(Error::from).and_then(|options| {
        let dialer = dialer_in(request, &mut files)?;
        let transport = credentials::from_request(members, files)?;
        let to = address_in(request)?.through(dialer);
        source::migrate(vm, to, transport, options, reply)
    });
    if let Err(e) = moved {
        match &e {
            Error::Failed(Failure::Cancelled(_)) => vm.note_move(MoveOutcome::Cancelled),
            // What became of it is not for this process to say.
            Error::Failed(Failure::Abandoned) => {}
            Error::Failed(_) | Error::Link(_) => vm.note_move(MoveOutcome::Failed),
            // Nothing was tried.
            _ => {}
        }
        reply.answer(&Err(Box::new(e)));
    }
}

/// What connects for a process that cannot: the last of the files that came with the request.
fn dialer_in(request: &Request, files: &mut Vec<File>) -> Result<Option<Dialer>, Error> {
    let dialer = if request.flag("connector") { files.pop().map(Dialer::new) } else { None };
    if dialer.is_none() && jailed().is_some_and(|jailed| jailed.network) {
        let why = "the VM is in a jail without a network, and nothing came with the request that connects for it: \
                   `vmm-lite migrate` of the same version sends that";
        return Err(Error::Transport(why.into()));
    }
    Ok(dialer)
}

/// Where to, as the request has it: `to`, and in `addresses` what that stands for.
fn address_in(request: &Request) -> Result<address::Address, Error> {
    let to = request.text("to").unwrap_or_default();
    let to: address::Address = to.parse()?;
    let addresses = request.members().get("addresses").and_then(Value::as_array);
    let Some(addresses) = addresses else { return Ok(to) };
    let addresses = addresses.iter().filter_map(|a| a.as_str()?.parse().ok()).take(ADDRESSES_MAX);
    Ok(to.found_at(addresses.collect()))
}

/// Sixteen random bytes.
fn draw() -> Result<[u8; 16], Error> {
    crate::random::bytes().map_err(Error::Random)
}

/// How long a peer may be silent: as usual, unless a test has less time.
fn patience(usual: Duration) -> Duration {
    #[cfg(debug_assertions)]
    let usual = crate::fail_point::patience(usual);
    usual
}
