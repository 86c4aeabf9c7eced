//! A VM's manifest and state, as parts of a file.

use super::Error;
use crate::{
    devices::{clock::ClockState, console::ConsoleState, net::NetState, state::DeviceState},
    kvm::{VcpuState, cpu::Features},
    vm::{
        Histogram, History, Identity, Vm, VmState,
        codec::{self, CodecError, Payload, Sections},
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Versions of parts in files from before v0.2.0, which begin with the version alone: the
/// identity's, and the last one of the state. The first state had no history, the second no
/// brownouts in it.
const OLD_IDENTITY: u8 = 1;
const OLD_STATE: u8 = 3;

/// A state as those files have it.
#[derive(Deserialize)]
struct OldState {
    vcpu: VcpuState,
    net: Option<NetState>,
    console: ConsoleState,
    clock: ClockState,
    unserved: u32,
    quiesce_number: u32,
    history: History,
}

impl From<OldState> for VmState {
    fn from(old: OldState) -> Self {
        let OldState { vcpu, net, console, clock, unserved, quiesce_number, history } = old;
        let devices = net.map(DeviceState::Net).into_iter().collect();
        Self { vcpus: vec![vcpu], devices, console, clock, unserved, quiesce_number, history }
    }
}

/// A VM without its memory.
#[derive(Clone, PartialEq, Debug)]
pub struct SavedVm {
    /// Its manifest, and the CPU features that it may have found.
    pub manifest: VmManifest,
    /// Its state.
    pub state: VmState,
}

/// The first of the two parts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VmManifest {
    /// The manifest.
    pub identity: Identity,
    /// The CPU features that it may have found.
    pub features: Features,
}

impl VmManifest {
    /// For a VM that runs here.
    #[must_use]
    pub fn of(vm: &Vm) -> Self {
        Self { identity: vm.identity().clone(), features: vm.features() }
    }

    /// Checks that a host with these features can run it.
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
        (codec::encode(Payload::Manifest, &self.manifest), self.state.encode())
    }

    /// Decodes the two parts, whose checksums are verified already.
    ///
    /// # Errors
    /// [`Error::Codec`].
    pub fn decode(identity: &[u8], state: &[u8]) -> Result<Self, Error> {
        let manifest = match identity {
            [OLD_IDENTITY, old @ ..] => whole(old, "identity")?,
            _ => codec::decode(Payload::Manifest, identity)?,
        };
        let state = match state {
            // Each version's additions are at the end.
            [1, old @ ..] => longer(old, &History::default())?,
            [2, old @ ..] => longer(old, &Histogram::default())?,
            [OLD_STATE, old @ ..] => whole::<OldState>(old, "state")?.into(),
            _ => VmState::decode(state)?,
        };
        Ok(Self { manifest, state })
    }

    /// Both parts as one, for a process of the same executable.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(Payload::Seed, &(&self.manifest, self.state.sections()))
    }

    /// Undoes [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// [`Error::Codec`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (manifest, sections): (_, Sections) = codec::decode(Payload::Seed, bytes)?;
        Ok(Self { manifest, state: VmState::from_sections(&sections)? })
    }

    /// How long ago its state was captured, by the wall clock; zero if that is in the future.
    #[must_use]
    pub fn age(&self) -> Duration {
        let clock = &self.state.clock;
        let then = Duration::from_nanos(clock.mono_ns.saturating_add(clock.wall_offset_ns));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.saturating_sub(then)
    }
}

/// A state of an older version, with what it lacks added at the end.
fn longer(old: &[u8], lacks: &impl Serialize) -> Result<VmState, Error> {
    let bytes = postcard::to_extend(lacks, old.to_vec());
    Ok(whole::<OldState>(&bytes.map_err(|_| CodecError::Garbled("state"))?, "state")?.into())
}

fn whole<T: DeserializeOwned>(bytes: &[u8], name: &'static str) -> Result<T, Error> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(CodecError::Garbled(name).into()),
    }
}
