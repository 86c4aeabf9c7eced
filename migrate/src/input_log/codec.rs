//! The bytes of records: postcard, with the samples of an exit as differences, which are small for
//! readings of a clock. Each record can be decoded by itself.

use super::Record;

/// Bytes that are not a record of this version.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
#[error("bytes that are not a record of an input log")]
pub struct DecodeError;

/// Appends the bytes of `record` to `to`.
///
/// # Panics
/// Never: memory is the only thing that can run out.
pub fn encode(record: &Record, to: &mut Vec<u8>) {
    let bytes = std::mem::take(to);
    *to = postcard::to_extend(record, bytes).expect("records have a length");
}

/// Decodes one record, which `bytes` must have and nothing else.
///
/// # Errors
/// [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    match postcard::take_from_bytes(bytes) {
        Ok((record, [])) => Ok(record),
        _ => Err(DecodeError),
    }
}

/// A list of numbers, each but the first as its difference from the one before.
pub(super) mod deltas {
    use serde::{
        Deserializer, Serializer,
        de::{SeqAccess, Visitor},
        ser::SerializeSeq,
    };
    use std::fmt;

    pub fn serialize<S: Serializer>(samples: &[u64], to: S) -> Result<S::Ok, S::Error> {
        let mut list = to.serialize_seq(Some(samples.len()))?;
        let mut last = 0_u64;
        for sample in samples {
            let delta = sample.wrapping_sub(last) as i64;
            list.serialize_element(&delta)?;
            last = *sample;
        }
        list.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u64>, D::Error> {
        struct Deltas;

        impl<'de> Visitor<'de> for Deltas {
            type Value = Vec<u64>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of differences")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u64>, A::Error> {
                // Bounded by the bytes there are: each element has at least one.
                let mut samples = Vec::new();
                let mut last = 0_u64;
                while let Some(delta) = list.next_element::<i64>()? {
                    last = last.wrapping_add(delta as u64);
                    samples.push(last);
                }
                Ok(samples)
            }
        }

        from.deserialize_seq(Deltas)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{
        Check, Clock, Console, Device, Exit, Inputs, News, Packet, Quiesce, Reason,
    };
    use super::*;
    use proptest::prelude::*;

    fn exit(samples: Vec<u64>) -> Record {
        let check = Some(Check { registers: 1, first_page: 256, pages: 256, memory: 2 });
        Record::Exit(Exit { reason: Reason::Doorbell(4), samples, check })
    }

    fn inputs(bytes: Vec<u8>) -> Record {
        let len = bytes.len() as u32;
        let packets = vec![Packet { len, bytes: bytes.clone() }];
        let news = News { clock: Clock { mult: 7, ..Clock::default() }, ..News::default() };
        Record::Inputs(Inputs {
            devices: vec![Device { taken: 2, digest: 3, packets }],
            console: Console { taken: 9, given: bytes, ended: true },
            news: Some(Box::new(news)),
            quiesce: Some(Quiesce { number: 1, deadline_tsc: 2 }),
            reclaim: Some(5),
        })
    }

    fn bytes(record: &Record) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(record, &mut bytes);
        bytes
    }

    #[test]
    fn the_bytes_of_a_version_do_not_change() {
        let check = None;
        let reason = Reason::MmioWrite { address: 1 << 38, data: [1, 0, 0, 0, 0, 0, 0, 0], len: 4 };
        let exit = Record::Exit(Exit { reason, samples: vec![1000, 1003, 1001], check });
        let golden =
            [0, 2, 128, 128, 128, 128, 128, 8, 1, 0, 0, 0, 0, 0, 0, 0, 4, 3, 208, 15, 6, 3, 0];
        assert_eq!(bytes(&exit), golden);
        let device =
            Device { taken: 1, digest: 2, packets: vec![Packet { len: 3, bytes: vec![4, 5, 6] }] };
        let inputs = Inputs { devices: vec![device], ..Inputs::default() };
        let golden = [1, 1, 1, 2, 1, 3, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0];
        assert_eq!(bytes(&Record::Inputs(inputs)), golden);
    }

    #[test]
    fn readings_of_a_clock_are_small() {
        let readings = (0..100).map(|n| 3_000_000_000_000_000 + n * 5_000).collect();
        assert!(bytes(&exit(readings)).len() < 250);
    }

    proptest! {
        #[test]
        fn records_survive_their_encoding(
            samples in prop::collection::vec(any::<u64>(), 0..20),
            content in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            for record in [exit(samples), inputs(content)] {
                let bytes = bytes(&record);
                prop_assert_eq!(decode(&bytes), Ok(record));
                for len in 0..bytes.len() {
                    prop_assert_eq!(decode(&bytes[..len]), Err(DecodeError));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(
            at in prop::collection::vec((0_usize..400, any::<u8>()), 0..8),
            noise in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut forged = bytes(&inputs(vec![7; 200]));
            let len = forged.len();
            at.into_iter().for_each(|(at, byte)| forged[at % len] = byte);
            let _ = decode(&forged);
            let _ = decode(&noise);
        }
    }
}
