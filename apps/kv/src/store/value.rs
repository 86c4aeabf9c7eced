//! Values: strings, lists, hashes, sets, sorted sets.

use super::dict::Dict;
use super::list::List;
use super::sorted_set::SortedSet;
use smallvec::SmallVec;

/// Bytes; up to 16 of them without a separate allocation.
pub type Blob = SmallVec<[u8; 16]>;

/// A hash.
pub type Hash = Dict<Blob>;
/// A set.
pub type Set = Dict<()>;

/// The value of a key. Only a string may be empty: a collection's key is removed with its last
/// element.
#[derive(Debug)]
pub enum Value {
    /// A string.
    String(Blob),
    /// A list.
    List(Box<List>),
    /// A hash.
    Hash(Box<Hash>),
    /// A set.
    Set(Box<Set>),
    /// A sorted set.
    SortedSet(Box<SortedSet>),
}

/// The value has another type than the command needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrongType;

/// A type that a value can have.
pub trait Kind: Sized {
    /// The value as this type.
    ///
    /// # Errors
    /// It is of another type.
    fn of(value: &Value) -> Result<&Self, WrongType>;
    /// The value as this type, to change.
    ///
    /// # Errors
    /// It is of another type.
    fn of_mut(value: &mut Value) -> Result<&mut Self, WrongType>;
    /// An empty value of this type.
    fn empty() -> Value;
    /// Whether it is empty, so that its key must be removed.
    fn is_gone(&self) -> bool;
}

macro_rules! kind {
    ($type:ty, $variant:ident, $empty:expr, $gone:expr) => {
        impl Kind for $type {
            fn of(value: &Value) -> Result<&Self, WrongType> {
                match value {
                    Value::$variant(inner) => Ok(inner),
                    _ => Err(WrongType),
                }
            }

            fn of_mut(value: &mut Value) -> Result<&mut Self, WrongType> {
                match value {
                    Value::$variant(inner) => Ok(inner),
                    _ => Err(WrongType),
                }
            }

            fn empty() -> Value {
                Value::$variant($empty)
            }

            fn is_gone(&self) -> bool {
                $gone(self)
            }
        }
    };
}

kind!(Blob, String, Blob::new(), |_| false);
kind!(List, List, Box::default(), List::is_empty);
kind!(Hash, Hash, Box::default(), Dict::is_empty);
kind!(Set, Set, Box::default(), Dict::is_empty);
kind!(SortedSet, SortedSet, Box::default(), SortedSet::is_empty);

impl Value {
    /// The type's name, as in TYPE.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::List(_) => "list",
            Self::Hash(_) => "hash",
            Self::Set(_) => "set",
            Self::SortedSet(_) => "zset",
        }
    }

    /// The encoding, as in OBJECT ENCODING. The names are Redis', which describe how Redis stores a
    /// value.
    #[must_use]
    pub fn encoding(&self) -> &'static str {
        match self {
            Self::String(bytes) if crate::protocol::number::parse_i64(bytes).is_some() => "int",
            Self::String(bytes) if bytes.len() <= 44 => "embstr",
            Self::String(_) => "raw",
            Self::List(_) => "quicklist",
            Self::Hash(_) | Self::Set(_) => "hashtable",
            Self::SortedSet(_) => "skiplist",
        }
    }

    /// A copy, for COPY.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::String(bytes) => Self::String(bytes.clone()),
            Self::List(list) => Self::List(list.clone()),
            Self::Hash(hash) => {
                let mut copy = Box::<Hash>::default();
                for entry in hash.iter() {
                    copy.insert_new(&entry.key, entry.value.clone());
                }
                Self::Hash(copy)
            }
            Self::Set(set) => {
                let mut copy = Box::<Set>::default();
                for entry in set.iter() {
                    copy.insert_new(&entry.key, ());
                }
                Self::Set(copy)
            }
            Self::SortedSet(set) => {
                let mut copy = Box::<SortedSet>::default();
                for (score, member) in set.iter() {
                    copy.insert(member, score);
                }
                Self::SortedSet(copy)
            }
        }
    }

    /// Approximate size in bytes, for MEMORY USAGE.
    #[must_use]
    pub fn size(&self) -> usize {
        let blob =
            |bytes: &Blob| size_of::<Blob>() + if bytes.spilled() { bytes.capacity() } else { 0 };
        match self {
            Self::String(bytes) => blob(bytes),
            Self::List(list) => list.iter().map(blob).sum::<usize>() + size_of::<List>(),
            Self::Hash(hash) => {
                hash.iter().map(|e| blob(&e.key) + blob(&e.value) + 8).sum::<usize>()
                    + size_of::<Hash>()
            }
            Self::Set(set) => {
                set.iter().map(|e| blob(&e.key) + 8).sum::<usize>() + size_of::<Set>()
            }
            Self::SortedSet(set) => {
                set.iter().map(|(_, member)| 2 * member.len() + 80).sum::<usize>()
            }
        }
    }
}
