//! Everything of a VM but its memory.

use super::{
    History,
    codec::{self, CodecError, Payload, Section, Sections},
};
use crate::{
    devices::{
        clock::ClockState, console::ConsoleState, device::RestoreError, net::NetState,
        state::DeviceState,
    },
    kvm::{self, VcpuState},
};

/// What moves besides the memory. The VM's manifest is in [`Identity`](super::Identity), which is
/// sent first.
#[derive(Clone, PartialEq, Debug)]
pub struct VmState {
    /// The vCPUs.
    pub vcpus: Vec<VcpuState>,
    /// The devices on the bus, in their order there.
    pub devices: Vec<DeviceState>,
    /// The console.
    pub console: ConsoleState,
    /// The clock.
    pub clock: ClockState,
    /// Doorbell bits that were rung and not served yet.
    pub unserved: u32,
    /// Number of the last quiesce request.
    pub quiesce_number: u32,
    /// The VM's history so far.
    pub history: History,
}

impl VmState {
    /// Its sections.
    #[must_use]
    pub fn sections(&self) -> Sections {
        let mut sections = Sections::default();
        for vcpu in &self.vcpus {
            sections.push(Section::Vcpu, vcpu);
        }
        sections.push(Section::Requests, &(self.unserved, self.quiesce_number));
        sections.push(Section::Clock, &self.clock);
        sections.push(Section::Console, &self.console);
        for device in &self.devices {
            match device {
                DeviceState::Net(net) => sections.push(Section::Net, net),
            }
        }
        sections.push(Section::History, &self.history);
        sections
    }

    /// Builds a state from its sections.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn from_sections(sections: &Sections) -> Result<Self, CodecError> {
        sections.check()?;
        let (unserved, quiesce_number) = sections.one(Section::Requests)?;
        Ok(Self {
            vcpus: sections.all(Section::Vcpu)?,
            devices: sections.all(Section::Net)?.into_iter().map(DeviceState::Net).collect(),
            console: sections.one(Section::Console)?,
            clock: sections.one(Section::Clock)?,
            unserved,
            quiesce_number,
            history: sections.one(Section::History)?,
        })
    }

    /// The states of its network devices, to be changed.
    pub fn nets_mut(&mut self) -> impl Iterator<Item = &mut NetState> {
        self.devices.iter_mut().map(|device| match device {
            DeviceState::Net(net) => net,
        })
    }

    /// Encodes it as a payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(Payload::State, &self.sections())
    }

    /// Decodes a payload.
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        Self::from_sections(&codec::decode(Payload::State, bytes)?)
    }
}

/// Why a state was not applied. The VM must be dropped then.
#[derive(thiserror::Error, Debug)]
pub enum ApplyError {
    /// The vCPU's error.
    #[error(transparent)]
    Vcpu(#[from] kvm::Error),
    /// The error of a device on the bus.
    #[error(transparent)]
    Device(#[from] RestoreError),
    /// Another number of vCPUs.
    #[error("the state has {state} vCPUs, and the VM {vm}")]
    Vcpus {
        /// Those of the state.
        state: usize,
        /// Those of the VM.
        vm: usize,
    },
    /// Doorbell bits that have no meaning.
    #[error("the state has doorbell bits {0:#x}, which mean nothing")]
    Doorbell(u32),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::{QueueState, TransportState};
    use proptest::prelude::*;

    fn net(mtu: u16) -> DeviceState {
        let transport = TransportState {
            features_sel: 1,
            driver_features_sel: 1,
            driver_features: 1 << 32,
            queue_sel: 1,
            status: 15,
            queues: [QueueState::idle_at(0x1000); 2],
        };
        DeviceState::Net(NetState { mac: [2; 6], mtu, transport })
    }

    fn state() -> VmState {
        VmState {
            vcpus: vec![VcpuState {
                regs: Default::default(),
                sregs: Default::default(),
                events: Default::default(),
                xcrs: Default::default(),
                xsave: vec![1; 600],
                msrs: Vec::new(),
            }],
            devices: vec![net(1500)],
            console: ConsoleState { out_tail: 1, in_head: 2 },
            clock: ClockState { mono_ns: 3, wall_offset_ns: 4 },
            unserved: 5,
            quiesce_number: 6,
            history: History::default(),
        }
    }

    #[test]
    fn a_state_survives_its_encoding() {
        let bytes = state().encode();
        assert_eq!(VmState::decode(&bytes).unwrap(), state());
        for len in 0..bytes.len() {
            assert!(VmState::decode(&bytes[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn devices_keep_their_order_and_there_may_be_none() {
        for devices in [vec![], vec![net(1500), net(9000)]] {
            let state = VmState { devices, ..state() };
            assert_eq!(VmState::decode(&state.encode()).unwrap(), state);
        }
    }

    #[test]
    fn offloads_of_at_most_one_device_have_the_bytes_of_an_option() {
        for offload in [None, Some(0), Some(7)] {
            let list: Vec<u32> = offload.into_iter().collect();
            let bytes = postcard::to_stdvec(&offload);
            assert_eq!(postcard::to_stdvec(&list), bytes);
        }
    }

    proptest! {
        /// Bytes of a peer are decoded or refused, whatever they are.
        #[test]
        fn arbitrary_bytes_are_decoded_or_refused(
            at in prop::collection::vec((0_usize..1400, any::<u8>()), 1..20),
            noise in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let mut bytes = state().encode();
            let len = bytes.len();
            at.into_iter().for_each(|(at, byte)| bytes[at % len] = byte);
            let _ = VmState::decode(&bytes);
            let _ = VmState::decode(&noise);
        }
    }
}
