//! Who a VM is, and its state, as parts of a file.

use super::Error;
use crate::{
    kvm::cpu::Features,
    vm::{Histogram, History, Identity, Vm, VmState},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Version of what the identity holds; its first byte.
pub const IDENTITY_VERSION: u8 = 1;
/// Version of what the state holds; its first byte. The first had no history, the second no
/// brownouts in it.
pub const STATE_VERSION: u8 = 3;

/// A VM without its memory.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedVm {
    /// Who it is, and what it may have found its CPU to have.
    pub manifest: VmManifest,
    /// Its state.
    pub state: VmState,
}

/// The first of the two parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VmManifest {
    /// Who it is.
    pub identity: Identity,
    /// What it may have found its CPU to have.
    pub features: Features,
}

impl VmManifest {
    /// Of a VM that runs here.
    #[must_use]
    pub fn of(vm: &Vm) -> Self {
        Self { identity: vm.identity().clone(), features: vm.features() }
    }

    /// Whether a host with these features is good enough for it.
    ///
    /// # Errors
    /// [`Error::Features`].
    pub fn fits(&self, here: &Features) -> Result<(), Error> {
        let missing = self.features.missing_from(here);
        if missing.is_empty() { Ok(()) } else { Err(Error::Features(missing)) }
    }
}

impl SavedVm {
    /// The two parts.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        (part(IDENTITY_VERSION, &self.manifest), part(STATE_VERSION, &self.state))
    }

    /// Reads the two parts, whose checksums were found right.
    ///
    /// # Errors
    /// [`Error::Part`].
    pub fn decode(identity: &[u8], state: &[u8]) -> Result<Self, Error> {
        let manifest = whole(IDENTITY_VERSION, identity, "identity")?;
        let state = match state.split_first() {
            // What came with a version stands at the end.
            Some((1, old)) => longer(old, &History::default())?,
            Some((2, old)) => longer(old, &Histogram::default())?,
            _ => whole(STATE_VERSION, state, "state")?,
        };
        Ok(Self { manifest, state })
    }

    /// Both parts as one, for a process of this very program.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        part(STATE_VERSION, &(&self.manifest, &self.state))
    }

    /// Undoes [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// [`Error::Part`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (manifest, state) = whole(STATE_VERSION, bytes, "seed")?;
        Ok(Self { manifest, state })
    }

    /// How long ago by the wall clock its state was captured; zero if that lies in the future.
    #[must_use]
    pub fn age(&self) -> Duration {
        let clock = &self.state.clock;
        let then = Duration::from_nanos(clock.mono_ns.saturating_add(clock.wall_offset_ns));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(then)
    }
}

/// A state of an older version, with what it lacks at the end.
fn longer(old: &[u8], lacks: &impl Serialize) -> Result<VmState, Error> {
    let mut bytes = vec![STATE_VERSION];
    bytes.extend(old);
    let bytes = postcard::to_extend(lacks, bytes).map_err(|_| Error::Part("state"))?;
    whole(STATE_VERSION, &bytes, "state")
}

fn part(version: u8, of: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(of, vec![version]).expect("nothing in it that postcard cannot write")
}

fn whole<T: DeserializeOwned>(version: u8, bytes: &[u8], name: &'static str) -> Result<T, Error> {
    let Some((first, bytes)) = bytes.split_first() else { return Err(Error::Part(name)) };
    if *first != version {
        return Err(Error::Part(name));
    }
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Error::Part(name)),
    }
}
