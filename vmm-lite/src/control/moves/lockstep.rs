//! A move in mode `lockstep`, by a swap of roles with the destination.

use super::{address_in, dialer_in, identity};
use crate::control::{Error, server::Reply};
use api::{MoveReport, Response, moves::MoveCost, nanoseconds, verb};
use std::fs::File;
use vmm::{
    identity::PublicKey,
    replication::protection::{Left, Member},
};

/// Moves the member's VM away, and answers the request when it has moved.
///
/// # Errors
/// [`Error`]: the request has not been answered.
pub fn serve(
    member: &Member,
    request: &verb::Migrate,
    mut files: Vec<File>,
    reply: &mut Reply,
) -> Result<(), Error> {
    let other_modes = "mode lockstep has none: its blackout is one message each way";
    for (name, given) in [
        ("max_blackout_ns", request.max_blackout_ns.is_some()),
        ("bandwidth", request.bandwidth.is_some()),
        ("timeout_ns", request.timeout_ns.is_some()),
    ] {
        if given {
            return Err(Error::Value(name, other_modes));
        }
    }
    let dialer = dialer_in(request.connector, &mut files)?;
    let transport = identity::from_request(request.identity.as_ref(), request.plaintext, files)?;
    let to = address_in(&request.to, request.addresses.as_deref())?.through(dialer);
    let told = |reply: &mut Reply, Left { blackout, pause, total, pages, bytes, peer }| {
        let cost = MoveCost {
            blackout_ns: Some(nanoseconds(blackout)),
            total_ns: nanoseconds(total),
            bytes_sent: bytes,
            pages_sent: pages,
            copy_pause_ns: Some(nanoseconds(pause)),
            ..MoveCost::default()
        };
        reply.answer(Ok(Response::Moved(Box::new(MoveReport {
            cost: Some(cost),
            to: to.to_string(),
            paused: false,
            destination_key: peer.map(|key| PublicKey(key).to_string()),
        }))));
    };
    Ok(member.leave(&to, &transport, reply, told)?)
}
