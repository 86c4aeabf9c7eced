//! Initial sequence numbers of TCP connections (RFC 6528): a clock, so that a pair of addresses
//! used again goes on after its last connection, and a keyed hash of the pair, so that the
//! numbers of one connection do not reveal those of another. Each [`Epoch`] has a key of its own.

use crate::entropy::Epoch;
use chacha20::{
    ChaCha20Rng,
    rand_core::{Rng, SeedableRng},
};
use core::net::SocketAddrV4;
use smoltcp::time::Instant;

/// Microseconds for which the clock counts once.
const TICK: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct Sequence {
    random: fn(&mut [u8]),
    epoch: fn() -> Epoch,
    secret: Option<(Epoch, [u8; 32])>,
}

impl Sequence {
    /// Draws its key with `random` when it needs one, and another one when `epoch` has changed.
    pub fn new(random: fn(&mut [u8]), epoch: fn() -> Epoch) -> Self {
        Self { random, epoch, secret: None }
    }

    /// The first sequence number of a connection that begins now.
    pub fn first(&mut self, now: Instant, local: SocketAddrV4, remote: SocketAddrV4) -> u32 {
        let ticks = u64::try_from(now.total_micros()).unwrap_or(0) / TICK;
        (ticks as u32).wrapping_add(self.hash(local, remote))
    }

    fn hash(&mut self, local: SocketAddrV4, remote: SocketAddrV4) -> u32 {
        let epoch = (self.epoch)();
        let secret = match self.secret {
            Some((drawn_in, secret)) if drawn_in == epoch => secret,
            _ => {
                let mut secret = [0; 32];
                (self.random)(&mut secret);
                self.secret = Some((epoch, secret));
                secret
            }
        };
        // ChaCha20 is a pseudo-random function of its nonce: first a key for this pair of hosts,
        // then a word for this pair of ports.
        let word = |a: u32, b: u32| u64::from(a) << 32 | u64::from(b);
        let hosts = word(local.ip().to_bits(), remote.ip().to_bits());
        let ports = word(local.port().into(), remote.port().into());
        let mut key = [0; 32];
        stream(secret, hosts).fill_bytes(&mut key);
        stream(key, ports).next_u32()
    }
}

fn stream(key: [u8; 32], nonce: u64) -> ChaCha20Rng {
    let mut rng = ChaCha20Rng::from_seed(key);
    rng.set_stream(nonce);
    rng
}
