//! Hands on the packets that reach the old place (rule R5).

use super::connection::{Connection, LinkError};
use crate::vm::LatePackets;
use migrate::wire::Message;
use std::time::{Duration, Instant};

/// The network has learnt where the guest is when nothing came for that long …
const QUIET: Duration = Duration::from_millis(50);
/// … and in any case after that long.
const ENOUGH: Duration = Duration::from_millis(500);

/// Sends late packets to the destination until none come any more, then says so.
///
/// # Errors
/// [`LinkError`]: the rest is lost, as packets may be.
pub fn hand_on(mut packets: LatePackets, connection: &mut Connection) -> Result<u64, LinkError> {
    let end = Instant::now() + ENOUGH;
    let mut count = 0;
    while Instant::now() < end {
        match packets.next(Instant::now() + QUIET)? {
            Some(frame) => connection.send(&Message::Late(frame.to_vec()))?,
            None => break,
        }
        count += 1;
    }
    connection.send(&Message::LateEnd)?;
    Ok(count)
}
