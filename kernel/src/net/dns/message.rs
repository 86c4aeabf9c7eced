//! Questions to name servers, and their answers (RFC 1035). Only IPv4 addresses are requested.
//!
//! Answers come from unauthenticated peers: one that is cut, loops, or belongs to another question
//! is no answer.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

/// Port of name servers.
pub const PORT: u16 = 53;
/// Longest answer by UDP that a server may send if it is not asked for more, bytes.
pub const ANSWER_MAX: usize = 512;

const HEADER: usize = 12;
const NAME_MAX: usize = 255;
const LABEL_MAX: usize = 63;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;
const RECURSION_DESIRED: u16 = 0x0100;
const RESPONSE: u16 = 0x8000;
const NO_SUCH_NAME: u16 = 3;

/// The content of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The name has these addresses, at least one.
    Addresses(Vec<Ipv4Addr>),
    /// The name does not exist, or has no such address.
    None,
    /// The server failed.
    Failure,
}

/// The question for the addresses of `name`; `None` for what cannot be a name.
#[must_use]
pub fn question(id: u16, name: &[u8]) -> Option<Vec<u8>> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let mut message = Vec::with_capacity(HEADER + name.len() + 6);
    for word in [id, RECURSION_DESIRED, 1, 0, 0, 0] {
        message.extend(word.to_be_bytes());
    }
    for label in name.split(|&b| b == b'.') {
        if label.is_empty() || label.len() > LABEL_MAX || label.contains(&0) {
            return None;
        }
        message.push(label.len() as u8);
        message.extend(label);
    }
    message.push(0);
    if message.len() - HEADER > NAME_MAX {
        return None;
    }
    for word in [TYPE_A, CLASS_IN] {
        message.extend(word.to_be_bytes());
    }
    Some(message)
}

fn word(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// Where the name at `at` ends.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            len if usize::from(len) <= LABEL_MAX => at += 1 + usize::from(len),
            // The rest of it is elsewhere.
            len if len >= 0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// What `message` answers to `question`; `None` if it is no answer to it.
#[must_use]
pub fn answer(message: &[u8], question: &[u8]) -> Option<Answer> {
    let flags = word(message, 2)?;
    let asked = message.get(HEADER..question.len())?;
    if word(message, 0)? != word(question, 0)?
        || flags & RESPONSE == 0
        || word(message, 4)? != 1
        || !asked.eq_ignore_ascii_case(&question[HEADER..])
    {
        return None;
    }
    match flags & 0xf {
        0 => {}
        NO_SUCH_NAME => return Some(Answer::None),
        _ => return Some(Answer::Failure),
    }
    // Other names in it are aliases: the server has followed them.
    let mut addresses = Vec::new();
    let mut at = question.len();
    for _ in 0..word(message, 6)? {
        let record = |at| {
            let at = skip_name(message, at)?;
            let len = usize::from(word(message, at + 8)?);
            let data = message.get(at + 10..at + 10 + len)?;
            Some((word(message, at)?, word(message, at + 2)?, data, at + 10 + len))
        };
        // What is cut off is not there.
        let Some((kind, class, data, next)) = record(at) else { break };
        if kind == TYPE_A
            && class == CLASS_IN
            && let Ok(octets) = <[u8; 4]>::try_from(data)
        {
            addresses.push(octets.into());
        }
        at = next;
    }
    Some(if addresses.is_empty() { Answer::None } else { Answer::Addresses(addresses) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    /// An answer with these records: type and data, for the name in the question.
    fn reply(question: &[u8], code: u16, records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = question.to_vec();
        message[2..4].copy_from_slice(&(0x8180 | code).to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for (kind, data) in records {
            message.extend([0xc0, 12]);
            message.extend(kind.to_be_bytes());
            message.extend([0, 1, 0, 0, 0, 60]);
            message.extend((data.len() as u16).to_be_bytes());
            message.extend(*data);
        }
        message
    }

    #[test]
    fn a_question_is_as_the_standard_has_it() {
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
        assert_eq!(question(0x1234, b"example.org").unwrap(), expected);
        assert_eq!(question(0x1234, b"example.org.").unwrap(), expected);
        for name in [&b""[..], b".", b"a..b", b".a", &[b'x'; 64], &vec![b'.'; 300], b"a\0b"] {
            assert_eq!(question(1, name), None);
        }
        let long = [b"a.".repeat(126), b"aa".to_vec()].concat();
        assert!(question(1, &long[..long.len() - 1]).is_some());
        assert!(question(1, &long).is_none());
    }

    #[test]
    fn addresses_are_found_behind_other_names() {
        let q = question(7, b"www.example.org").unwrap();
        let message = reply(
            &q,
            0,
            &[(5, b"\x01x\xc0\x10"), (1, &[1, 2, 3, 4]), (28, &[0; 16]), (1, &[5, 6, 7, 8])],
        );
        let expected = vec![Ipv4Addr::new(1, 2, 3, 4), Ipv4Addr::new(5, 6, 7, 8)];
        assert_eq!(answer(&message, &q), Some(Answer::Addresses(expected)));
        assert!(answer(&message.to_ascii_uppercase(), &q.to_ascii_uppercase()).is_some());
    }

    #[test]
    fn names_without_addresses_are_reported() {
        let q = question(7, b"none.example").unwrap();
        assert_eq!(answer(&reply(&q, 3, &[]), &q), Some(Answer::None));
        assert_eq!(answer(&reply(&q, 0, &[(28, &[0; 16])]), &q), Some(Answer::None));
        assert_eq!(answer(&reply(&q, 2, &[]), &q), Some(Answer::Failure));
    }

    #[test]
    fn answers_to_other_questions_are_none() {
        let q = question(7, b"example.org").unwrap();
        let a = [(1, &[1, 2, 3, 4][..])];
        assert_eq!(answer(&q, &q), None, "the question itself");
        assert_eq!(answer(&reply(&question(8, b"example.org").unwrap(), 0, &a), &q), None);
        assert_eq!(answer(&reply(&question(7, b"example.com").unwrap(), 0, &a), &q), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_safely(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..120),
            start in 0_usize..40,
        ) {
            let q = question(7, b"example.org").unwrap();
            let good = reply(&q, 0, &[(1, &[1, 2, 3, 4])]);
            let n = start.min(bytes.len());
            bytes[..n].copy_from_slice(&good[..n]);
            let _answer = answer(&bytes, &q);
            for cut in 0..good.len() {
                let _answer = answer(&good[..cut], &q);
            }
        }
    }
}
