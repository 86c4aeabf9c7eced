//! The network device on the bus.

use super::{
    Net,
    config::{self, MODEL, TRANSMIT},
    packets,
};
use crate::{
    devices::{
        Violation,
        device::{Device, RestoreError, Service},
        inputs::{Recording, Traffic, Unlike},
        state::DeviceState,
        throttle::{Rates, Throttle},
        virtio::{Change, QUEUE_MAX},
    },
    memory::Writable,
};
use migrate::input_log::Device as Inputs;

impl Device for Net {
    fn name(&self) -> &'static str {
        MODEL.name
    }

    fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Violation> {
        self.transport.read(offset, data, &config::space(self.mac, self.mtu))
    }

    fn write(&mut self, offset: u64, data: &[u8], ram: Writable<'_>) -> Result<(), Violation> {
        match self.transport.write(offset, data, ram)? {
            Change::None => {}
            Change::Status => self.tell_offload(self.offload()),
            Change::Reset => self.reset(),
        }
        Ok(())
    }

    fn serve(&mut self, ram: Writable<'_>) -> Result<Service, Violation> {
        let moved = self.pass(ram)?;
        // Without a buffer for it, a packet does not wake the guest: the guest must first provide
        // one. Nor does a packet that exceeds the guest's rate.
        let packets =
            if moved.no_buffers || moved.receive_wait.is_some() { 0 } else { libc::POLLIN };
        let room = if moved.blocked { libc::POLLOUT } else { 0 };
        Ok(Service {
            progress: moved.received > 0 || moved.more,
            poll: Some((self.backend.fd(), packets | room)).filter(|(_, events)| *events != 0),
            again_in: [moved.send_wait, moved.receive_wait].into_iter().flatten().min(),
            stuck: moved.blocked || moved.send_wait.is_some(),
        })
    }

    fn flush(&mut self, ram: Writable<'_>) -> Result<(), Violation> {
        let Self {
            backend,
            own,
            throttles: [_, sending],
            transport,
            buffers,
            counters,
            recording,
            ..
        } = self;
        let Some([_, transmit]) = transport.live_queues() else { return Ok(()) };
        // Only a queue that changes while it is served never empties, and a stopped guest does not
        // change it.
        for _ in 0..=usize::from(QUEUE_MAX) / packets::BATCH {
            let backend = backend.as_mut();
            let moved =
                packets::send(transmit, ram, backend, *own, sending, buffers, counters, recording)?;
            if !moved.more {
                return Ok(());
            }
        }
        Err(MODEL.broken(TRANSMIT, "it has more packets than room for them".into()))
    }

    /// Each direction by itself.
    fn limit(&mut self, rates: &Rates) {
        self.throttles = [rates.net, rates.net].map(Throttle::new);
    }

    fn save(&self) -> DeviceState {
        DeviceState::Net(self.capture())
    }

    fn restore(&mut self, state: &DeviceState, ram: Writable<'_>) -> Result<(), RestoreError> {
        match state {
            DeviceState::Net(state) => Ok(self.apply(state, ram)?),
        }
    }

    fn reset(&mut self) {
        self.transport.reset();
        self.tell_offload(self.offload());
    }

    fn recording(&mut self) -> &mut Recording {
        &mut self.recording
    }

    fn replay(
        &mut self,
        inputs: &Inputs,
        ram: Writable<'_>,
        traffic: Option<&mut dyn Traffic>,
    ) -> Result<(), Unlike> {
        self.repeat(inputs, ram, traffic)
    }
}
