//! A VM's manifest and state, as parts of a file.

use super::Error;
use crate::{
    boot::OwnClock,
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
/// The beginning of a manifest of vmm-lite 0.2, which has no `own_clock`.
const MANIFEST_2: [u8; 2] = [Payload::Manifest as u8, 2];

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
#[serde(from = "Written", into = "Written")]
pub struct VmManifest {
    /// The manifest.
    pub identity: Identity,
    /// The CPU features that it may have found.
    pub features: Features,
}

/// Its encoded form.
#[derive(Serialize, Deserialize)]
struct Written {
    identity: Identity,
    features: Features,
    own_clock: OwnClock,
}

impl From<VmManifest> for Written {
    fn from(VmManifest { identity, features }: VmManifest) -> Self {
        let own_clock = identity.own_clock.clone();
        Self { identity, features, own_clock }
    }
}

impl From<Written> for VmManifest {
    fn from(Written { identity, features, own_clock }: Written) -> Self {
        Self { identity: Identity { own_clock, ..identity }, features }
    }
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
            [OLD_IDENTITY, old @ ..] => older(whole(old, "identity")?),
            [kind, version, old @ ..] if [*kind, *version] == MANIFEST_2 => {
                older(whole(old, "manifest")?)
            }
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

/// A manifest from before `own_clock`.
fn older((identity, features): (Identity, Features)) -> VmManifest {
    VmManifest { identity, features }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::Host;

    #[test]
    fn own_clock_readings_are_kept_and_unknown_in_older_manifests() {
        let features = match Host::open().and_then(|host| host.features()) {
            Ok(features) => features,
            Err(e) => return vmm_lite_lab::skipped("manifests of other versions", e),
        };
        let own_clock = OwnClock { count: Some(1), first: vec!["kv::main+0x1: rdtsc".into()] };
        let identity = Identity {
            name: "kv".into(),
            memory_size: 16 << 20,
            interface_version: 2,
            nets: vec![],
            own_clock,
        };
        let manifest = VmManifest { identity, features };
        let bytes = codec::encode(Payload::Manifest, &manifest);
        assert_eq!(codec::decode(Payload::Manifest, &bytes), Ok(manifest.clone()));
        let without = postcard::to_stdvec(&(&manifest.identity, &manifest.features)).unwrap();
        let mut expected = manifest;
        expected.identity.own_clock = OwnClock::default();
        for begin in [&MANIFEST_2[..], &[OLD_IDENTITY]] {
            let old = [begin, &without].concat();
            // Only the manifest is whole; so it is the state that is refused.
            let error = SavedVm::decode(&old, &[]).unwrap_err().to_string();
            assert!(error.contains("state"), "{error}");
            assert_eq!(older(whole(&old[begin.len()..], "manifest").unwrap()), expected);
            let longer = [&old[..], &[0]].concat();
            assert!(
                SavedVm::decode(&longer, &[]).unwrap_err().to_string().contains("manifest")
                    || begin.len() == 1
            );
        }
    }
}
