//! Finds the messages in what a connection delivers, in whatever pieces that comes.

use super::{
    WireError,
    header::{HEADER_SIZE, Header},
    message::{Message, decode},
};

/// Holds what has arrived of the next message: at most the longest message, and what was given to
/// the last [`Self::feed`].
#[derive(Clone, Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// Up to here they have been decoded.
    done: usize,
}

impl Decoder {
    /// A decoder for a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what has arrived. Call [`Self::next_message`] until it has nothing before the next
    /// call, so that what is held stays bounded.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.done);
        self.done = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message; `None` if it has not arrived in full.
    ///
    /// # Errors
    /// What the peer sent is no message. The connection is then useless: there is no way to find
    /// where the next one begins.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let Some((head, rest)) = self.bytes[self.done..].split_first_chunk::<HEADER_SIZE>() else {
            return Ok(None);
        };
        let header = Header::decode(head)?;
        let Some(body) = rest.get(..header.length as usize) else { return Ok(None) };
        let message = decode(&header, body)?;
        self.done += HEADER_SIZE + body.len();
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::arbiter::Term;
    use proptest::prelude::*;

    fn drain(decoder: &mut Decoder) -> Result<Vec<Message>, WireError> {
        std::iter::from_fn(|| decoder.next_message().transpose()).collect()
    }

    proptest! {
        #[test]
        fn messages_arrive_whatever_the_pieces(sizes in prop::collection::vec(1_usize..40, 1..60)) {
            let sent = [
                Message::Heartbeat { term: Term(3), released: 9 },
                Message::Goodbye,
                Message::Divergence { position: 7, what: "another frame".into() },
                Message::Dropped(Term(4)),
            ];
            let bytes: Vec<u8> = sent.iter().flat_map(Message::encode).collect();
            let (mut decoder, mut came, mut at) = (Decoder::new(), Vec::new(), 0);
            for size in sizes.into_iter().chain([bytes.len()]) {
                let end = (at + size).min(bytes.len());
                decoder.feed(&bytes[at..end]);
                came.extend(drain(&mut decoder).unwrap());
                at = end;
            }
            prop_assert_eq!(came, sent);
        }

        #[test]
        fn a_flipped_bit_is_no_message(bit in 0_usize..(HEADER_SIZE + 24) * 8) {
            let sent = Message::Ack { received: 5, executed: 4, stamp_ns: 3 };
            let mut bytes = sent.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new();
            decoder.feed(&bytes);
            let came = decoder.next_message();
            // A longer length waits for the rest, and fails then.
            prop_assert!(matches!(came, Err(_) | Ok(None)), "{came:?}");
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new();
            let _ = Header::of(super::super::Kind::Records, &[&bytes]);
            for kind in super::super::Kind::ALL {
                let header = Header::of(kind, &[&bytes]);
                if header.length > kind.most() { continue; }
                decoder.feed(&[&header.encode()[..], &bytes].concat());
                if drain(&mut decoder).is_err() { decoder = Decoder::new(); }
            }
        }
    }
}
