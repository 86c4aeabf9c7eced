//! What is stored for a set: one line of JSON, the same for every arbiter.

use crate::{
    error::Error,
    record::{MemberId, Record, SetId, Term},
    swap::{Nonce, Swap},
};
use serde::{Deserialize, Serialize};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// Longest text that is read.
pub const TEXT_MAX: usize = 8 << 10;

/// A record and the swap that stored it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub record: Record,
    pub writer: Nonce,
}

/// The text's fields.
#[derive(Serialize, Deserialize)]
struct Fields {
    format: u32,
    set: String,
    term: u64,
    active: String,
    in_sync: Vec<String>,
    writer: String,
}

impl Entry {
    /// What `swap` stores.
    pub fn of(swap: &Swap) -> Result<Self, Error> {
        swap.new.check().map_err(|e| Error::Refused(e.to_string()))?;
        Ok(Self { record: swap.new.clone(), writer: swap.nonce })
    }

    /// The line, without its end.
    pub fn text(&self) -> String {
        let fields = Fields {
            format: FORMAT,
            set: self.record.set.to_string(),
            term: self.record.term.0,
            active: self.record.active.to_string(),
            in_sync: self.record.in_sync.iter().map(MemberId::to_string).collect(),
            writer: self.writer.to_string(),
        };
        serde_json::to_string(&fields).expect("strings and numbers have a JSON form")
    }

    /// Reads a line that is stored for `set`.
    pub fn parse(set: SetId, text: &[u8]) -> Result<Self, Error> {
        let damaged = |why: String| Error::Damaged(format!("set {set}: {why}"));
        if text.len() > TEXT_MAX {
            return Err(damaged(format!("it has {} bytes, at most {TEXT_MAX}", text.len())));
        }
        let fields: Fields = serde_json::from_slice(text).map_err(|e| damaged(e.to_string()))?;
        if fields.format != FORMAT {
            return Err(damaged(format!(
                "its format is {}, and this version reads {FORMAT}; all members of a set need the \
                 same version of vmm-lite",
                fields.format
            )));
        }
        let id = |text: &str| from_hex(text).ok_or_else(|| damaged(format!("no id: {text:.40?}")));
        if id(&fields.set)? != set.0 {
            return Err(damaged(format!("it is of the set {}", fields.set)));
        }
        let in_sync = fields.in_sync.iter().map(|text| id(text).map(MemberId));
        let record = Record {
            set,
            term: Term(fields.term),
            active: MemberId(id(&fields.active)?),
            in_sync: in_sync.collect::<Result<_, _>>()?,
        };
        record.check().map_err(|e| damaged(e.to_string()))?;
        Ok(Self { record, writer: Nonce(id(&fields.writer)?) })
    }
}

/// The bytes of exactly 32 lower-case hexadecimal digits.
pub fn from_hex(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::STANDBYS_MAX;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = Entry> {
        let standbys = prop::collection::btree_set(any::<[u8; 16]>(), 0..=STANDBYS_MAX);
        (any::<[[u8; 16]; 3]>(), 1..u64::MAX, standbys).prop_map(|(ids, term, mut standbys)| {
            let [set, active, writer] = ids;
            standbys.remove(&active);
            let in_sync = standbys.into_iter().map(MemberId).collect();
            let (set, active) = (SetId(set), MemberId(active));
            let record = Record { set, term: Term(term), active, in_sync };
            Entry { record, writer: Nonce(writer) }
        })
    }

    proptest! {
        #[test]
        fn an_entry_is_read_back(entry in entries()) {
            let text = entry.text();
            prop_assert!(text.len() <= TEXT_MAX && !text.contains('\n'));
            prop_assert_eq!(Entry::parse(entry.record.set, text.as_bytes()), Ok(entry));
        }

        #[test]
        fn other_text_is_damaged_and_never_a_panic(
            entry in entries(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut text = entry.text().into_bytes();
            let at = at.index(text.len());
            text.truncate(at);
            prop_assert!(matches!(Entry::parse(entry.record.set, &text), Err(Error::Damaged(_))));
            let mut text = entry.text().into_bytes();
            text[at] = byte;
            // A changed digit is another valid entry; the file's checksum and etcd's notice that.
            let _ = Entry::parse(entry.record.set, &text);
        }
    }

    #[test]
    fn an_entry_of_another_set_or_format_is_refused() {
        let set = SetId([1; 16]);
        let record = Record { set, term: Term(1), active: MemberId([2; 16]), in_sync: vec![] };
        let entry = Entry { record, writer: Nonce([3; 16]) };
        assert!(Entry::parse(SetId([9; 16]), entry.text().as_bytes()).is_err());
        let newer = entry.text().replace("\"format\":1", "\"format\":2");
        let said = Entry::parse(set, newer.as_bytes()).unwrap_err().to_string();
        assert!(said.contains("its format is 2"), "{said}");
        for invalid in ["\"term\":0", "\"term\":-1", "\"term\":\"1\""] {
            let text = entry.text().replace("\"term\":1", invalid);
            assert!(Entry::parse(set, text.as_bytes()).is_err(), "{text}");
        }
        for digits in ["0", "+0112233445566778899aabbccddeeff", &"A".repeat(32)] {
            let text = entry.text().replace(&MemberId([2; 16]).to_string(), digits);
            assert!(Entry::parse(set, text.as_bytes()).is_err(), "{text}");
        }
    }
}
