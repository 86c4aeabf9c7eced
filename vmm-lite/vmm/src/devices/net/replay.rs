//! What the network device of a recorded guest did, repeated for one that is replayed.

use super::{
    Net,
    config::{MODEL, RECEIVE, TRANSMIT},
    packets::NUM_BUFFERS,
};
use crate::{
    devices::{
        inputs::{Traffic, Unlike},
        virtio::{done, next, put_back},
    },
    memory::Writable,
};
use migrate::input_log::Device as Inputs;

impl Net {
    /// Takes as many packets as the recorded device took, and gives those that it gave.
    pub(super) fn repeat(
        &mut self,
        inputs: &Inputs,
        ram: Writable<'_>,
        mut traffic: Option<&mut dyn Traffic>,
    ) -> Result<(), Unlike> {
        if inputs.is_empty() {
            return Ok(());
        }
        let name = MODEL.name;
        let Self { backend, own, transport, buffers, recording, .. } = self;
        let live = transport.live_queues().ok_or(Unlike::NotStarted(name))?;
        let [receive, transmit] = live;
        let broken = |what| MODEL.broken(TRANSMIT, what);
        for _ in 0..inputs.taken {
            let chain = next(transmit, ram).map_err(broken)?.ok_or(Unlike::FewerSent(name))?;
            let head = chain.head_index();
            let parts = buffers.gather(chain, ram, false).map_err(broken)?;
            let packet = recording.digest(parts);
            if let Some(traffic) =
                traffic.as_deref_mut().filter(|_| own.is_none_or(|own| own.sent(packet)))
            {
                traffic.sent(packet);
                // As on a wire, where it is lost if nothing accepts it.
                if traffic.sends()
                    && let Err(e) = backend.send(parts)
                {
                    tracing::debug!("{} does not accept a packet: {e}", backend.name());
                }
            }
            done(transmit, ram, head, 0).map_err(broken)?;
        }
        if recording.take_digest() != inputs.digest {
            return Err(Unlike::OtherSent(name));
        }
        let broken = |what| MODEL.broken(RECEIVE, what);
        for packet in &inputs.packets {
            let len = packet.len as usize;
            let chain = next(receive, ram).map_err(broken)?.ok_or(Unlike::NoBuffer(name))?;
            let head = chain.head_index();
            let buffer = buffers.gather(chain, ram, true).map_err(broken)?;
            if packet.bytes.len() != len.min(buffer.size()) {
                return Err(Unlike::NoBuffer(name));
            }
            buffer.write(0, &packet.bytes);
            if len > buffer.size() {
                put_back(receive);
                continue;
            }
            buffer.write(NUM_BUFFERS, &1_u16.to_le_bytes());
            done(receive, ram, head, len).map_err(broken)?;
            if let Some(traffic) = traffic.as_deref_mut() {
                traffic.received(&packet.bytes);
            }
        }
        Ok(())
    }
}
