//! Encodes and decodes VM and device state, for files and the wire alike.
//!
//! A *payload* is a byte with its kind, a byte with the version of that, and a value in
//! [postcard](https://postcard.jamesmunns.com/wire-format). A VM's state is a payload whose value
//! is a list of *sections*, one for each vCPU, each device and each other part; each has a kind and
//! a version of its own. So a reader finds unknown parts before it uses any of the state.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The kind of a payload. The numbers are part of the format. They are above all versions with
/// which payloads of older files begin, as those have no kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Payload {
    /// The VM manifest: identity, and CPU features.
    Manifest = 0x81,
    /// The state.
    State = 0x82,
    /// An offer of a VM.
    Offer = 0x83,
    /// The state that is handed over with the commit.
    Handover = 0x84,
    /// What a destination can prepare before the state arrives.
    SwitchHint = 0x85,
    /// Manifest and state for a clone.
    Seed = 0x86,
    /// What a journal says of its VM.
    Journal = 0x87,
    /// An offer of a VM to a standby.
    Protection = 0x88,
}

impl Payload {
    /// The version that is written.
    #[must_use]
    pub const fn version(self) -> u8 {
        match self {
            Self::Offer => 2,
            Self::Manifest => 3,
            Self::State => 4,
            Self::Handover | Self::SwitchHint | Self::Seed | Self::Journal | Self::Protection => 1,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::State => "state",
            Self::Offer => "offer",
            Self::Handover => "handover",
            Self::SwitchHint => "switch-over hint",
            Self::Seed => "seed of a clone",
            Self::Journal => "identity of a journal",
            Self::Protection => "offer to a standby",
        }
    }
}

/// The kind of a section of a state. The numbers are part of the format.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Section {
    /// A vCPU.
    Vcpu = 1,
    /// Doorbell bits that are not served yet, and the number of the last quiesce request.
    Requests = 2,
    /// The VM's history so far.
    History = 3,
    /// The clock.
    Clock = 16,
    /// The console.
    Console = 17,
    /// A network device.
    Net = 18,
}

impl Section {
    /// The version that is written.
    #[must_use]
    pub const fn version(self) -> u8 {
        1
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Vcpu => "vCPU",
            Self::Requests => "list of requests",
            Self::History => "history",
            Self::Clock => "clock",
            Self::Console => "console",
            Self::Net => "network device",
        }
    }

    /// All kinds.
    const ALL: [Self; 6] =
        [Self::Vcpu, Self::Requests, Self::History, Self::Clock, Self::Console, Self::Net];
}

/// Why bytes are not a state that this vmm-lite can read.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum CodecError {
    /// Another payload.
    #[error("the {expected} of the VM is something else (kind {found:#x})")]
    Kind {
        /// The expected kind.
        expected: &'static str,
        /// The kind that was found.
        found: u8,
    },
    /// Another version.
    #[error("the {what} comes in version {theirs}, and this vmm-lite reads version {ours}")]
    Version {
        /// The part with the version.
        what: &'static str,
        /// Its version.
        theirs: u8,
        /// The version that this vmm-lite reads.
        ours: u8,
    },
    /// A section of an unknown kind.
    #[error("the state has a part that this vmm-lite does not know (kind {0})")]
    Section(u8),
    /// A section occurs too often or not at all.
    #[error("the state has {found} of what is its {what}")]
    Count {
        /// The section.
        what: &'static str,
        /// How often it occurs.
        found: usize,
    },
    /// Truncated or invalid bytes.
    #[error("the {0} makes no sense")]
    Garbled(&'static str),
}

/// Encodes a payload with `value`.
///
/// # Panics
/// Never: postcard can encode all parts of a state.
#[must_use]
pub fn encode(payload: Payload, value: &impl Serialize) -> Vec<u8> {
    let head = vec![payload as u8, payload.version()];
    postcard::to_extend(value, head).expect("postcard can encode it")
}

/// Decodes the value of a payload, which must end where `bytes` end.
///
/// # Errors
/// [`CodecError`].
pub fn decode<'de, T: Deserialize<'de>>(
    payload: Payload,
    bytes: &'de [u8],
) -> Result<T, CodecError> {
    match decode_prefix(payload, bytes)? {
        (value, []) => Ok(value),
        _ => Err(CodecError::Garbled(payload.name())),
    }
}

/// Decodes the value of a payload; also returns what later versions of the same append.
///
/// # Errors
/// [`CodecError`].
pub fn decode_prefix<'de, T: Deserialize<'de>>(
    payload: Payload,
    bytes: &'de [u8],
) -> Result<(T, &'de [u8]), CodecError> {
    let what = payload.name();
    let [kind, version, value @ ..] = bytes else { return Err(CodecError::Garbled(what)) };
    if *kind != payload as u8 {
        return Err(CodecError::Kind { expected: what, found: *kind });
    }
    if *version != payload.version() {
        return Err(CodecError::Version { what, theirs: *version, ours: payload.version() });
    }
    postcard::take_from_bytes(value).map_err(|_| CodecError::Garbled(what))
}

/// Appends a value to a payload, which readers of its version may ignore.
///
/// # Panics
/// Never: postcard can encode all parts of a state.
#[must_use]
pub fn append(payload: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, payload).expect("postcard can encode it")
}

/// Decodes an appended value; also returns what is behind it.
///
/// # Errors
/// [`CodecError::Garbled`].
pub fn appended<'de, T: Deserialize<'de>>(
    payload: Payload,
    bytes: &'de [u8],
) -> Result<(T, &'de [u8]), CodecError> {
    postcard::take_from_bytes(bytes).map_err(|_| CodecError::Garbled(payload.name()))
}

/// A section in its encoded form.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Written {
    kind: u8,
    version: u8,
    #[serde(with = "serde_bytes")]
    value: Vec<u8>,
}

/// Sections of a state.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Sections(Vec<Written>);

impl Sections {
    /// Appends a section.
    ///
    /// # Panics
    /// Never: postcard can encode all parts of a state.
    pub fn push(&mut self, section: Section, value: &impl Serialize) {
        let value = postcard::to_stdvec(value).expect("postcard can encode it");
        self.0.push(Written { kind: section as u8, version: section.version(), value });
    }

    /// Checks that all sections are known, in versions that this vmm-lite reads.
    ///
    /// # Errors
    /// [`CodecError::Section`], [`CodecError::Version`].
    pub fn check(&self) -> Result<(), CodecError> {
        for written in &self.0 {
            let known = Section::ALL.into_iter().find(|known| *known as u8 == written.kind);
            let known = known.ok_or(CodecError::Section(written.kind))?;
            if written.version != known.version() {
                let (theirs, ours) = (written.version, known.version());
                return Err(CodecError::Version { what: known.name(), theirs, ours });
            }
        }
        Ok(())
    }

    /// The values of all sections of this kind, in their order.
    ///
    /// # Errors
    /// [`CodecError::Garbled`].
    pub fn all<T: DeserializeOwned>(&self, section: Section) -> Result<Vec<T>, CodecError> {
        let read = |written: &Written| match postcard::take_from_bytes(&written.value) {
            Ok((value, [])) => Ok(value),
            _ => Err(CodecError::Garbled(section.name())),
        };
        self.0.iter().filter(|written| written.kind == section as u8).map(read).collect()
    }

    /// The value of the one section of this kind.
    ///
    /// # Errors
    /// [`CodecError::Count`], [`CodecError::Garbled`].
    pub fn one<T: DeserializeOwned>(&self, section: Section) -> Result<T, CodecError> {
        let mut all = self.all(section)?;
        match (all.pop(), all.len()) {
            (Some(value), 0) => Ok(value),
            (None, _) => Err(CodecError::Count { what: section.name(), found: 0 }),
            (Some(_), more) => Err(CodecError::Count { what: section.name(), found: more + 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_says_what_it_is_and_in_which_version() {
        let bytes = encode(Payload::Manifest, &(7_u32, "kv"));
        assert_eq!(decode::<(u32, String)>(Payload::Manifest, &bytes), Ok((7, "kv".into())));
        let other = decode::<(u32, String)>(Payload::State, &bytes).unwrap_err().to_string();
        assert_eq!(other, "the state of the VM is something else (kind 0x81)");
        let mut newer = bytes.clone();
        newer[1] += 1;
        let said = decode::<(u32, String)>(Payload::Manifest, &newer).unwrap_err().to_string();
        assert_eq!(said, "the manifest comes in version 4, and this vmm-lite reads version 3");
        for len in 0..bytes.len() {
            assert!(decode::<(u32, String)>(Payload::Manifest, &bytes[..len]).is_err());
        }
        let longer = [&bytes[..], &[1]].concat();
        assert!(decode::<(u32, String)>(Payload::Manifest, &longer).is_err());
        let (_, rest) = decode_prefix::<(u32, String)>(Payload::Manifest, &longer).unwrap();
        assert_eq!(rest, [1]);
    }

    #[test]
    fn sections_are_found_by_kind_and_strange_ones_are_named() {
        let mut sections = Sections::default();
        sections.push(Section::Vcpu, &1_u8);
        sections.push(Section::Clock, &2_u8);
        sections.push(Section::Vcpu, &3_u8);
        assert_eq!(sections.check(), Ok(()));
        assert_eq!(sections.all::<u8>(Section::Vcpu), Ok(vec![1, 3]));
        assert_eq!(sections.one::<u8>(Section::Clock), Ok(2));
        let twice = sections.one::<u8>(Section::Vcpu).unwrap_err().to_string();
        assert_eq!(twice, "the state has 2 of what is its vCPU");
        assert_eq!(sections.all::<u8>(Section::Net), Ok(vec![]));
        assert!(sections.one::<u16>(Section::Net).is_err());
        sections.0[1].version = 9;
        let newer = sections.check().unwrap_err().to_string();
        assert!(newer.contains("clock comes in version 9"), "{newer}");
        sections.0[1].kind = 99;
        assert_eq!(sections.check(), Err(CodecError::Section(99)));
    }
}
