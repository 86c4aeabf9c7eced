//! The state of a network device, as it is captured.

use super::registers::{OFFERED, QUEUE_MAX};
use crate::memory::GuestRam;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FEATURES_OK;
use virtio_queue::{Queue, QueueT};
use vmm_lite_interface::layout::PAGE_SIZE;

/// Why a network device cannot continue from a state.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum Error {
    /// Features this VMM does not offer.
    #[error("the driver uses network features {0:#x} that this vmm-lite does not offer")]
    Features(u64),
    /// An invalid queue.
    #[error("network queue {0} does not fit this guest's memory")]
    Queue(usize),
    /// A queue with buffers in flight, which our devices never leave behind.
    #[error(
        "network queue {0} has taken {taken} buffers and given back {given}, where both should be \
         the same",
        taken = .1,
        given = .2
    )]
    Indices(usize, u16, u16),
    /// Tables that overlap: a write to one would change another.
    #[error("tables of the network queues overlap in the guest's memory")]
    Overlap,
    /// The guest's longest packets do not fit the TAP device.
    #[error(transparent)]
    Mtu(#[from] MtuTooSmall),
}

/// A TAP device whose packets are shorter than the guest's.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
#[error(
    "the guest's packets have up to {guest} bytes (MTU), and those of TAP device {device} have \
     {tap}: allow for longer ones with `ip link set {device} mtu {guest}`, on its bridge too, and \
     try again"
)]
pub struct MtuTooSmall {
    /// The guest's MTU.
    pub guest: u16,
    /// The device's MTU.
    pub tap: u16,
    /// The device.
    pub device: String,
}

/// The device's registers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NetState {
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// The MTU that it was given.
    pub mtu: u16,
    /// Which half of the device's features is shown.
    pub features_sel: u32,
    /// Which half of the driver's features is written.
    pub driver_features_sel: u32,
    /// Features the driver accepted.
    pub driver_features: u64,
    /// Which queue's registers are shown.
    pub queue_sel: u32,
    /// Device status.
    pub status: u32,
    /// Receive and transmit queue.
    pub queues: [QueueState; 2],
}

/// Registers and positions of a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct QueueState {
    /// Number of descriptors.
    pub size: u16,
    /// Whether the driver has set it up.
    pub ready: bool,
    /// The next entry of the available ring.
    pub next_avail: u16,
    /// The next entry of the used ring.
    pub next_used: u16,
    /// Guest-physical address of the descriptor table.
    pub desc_table: u64,
    /// Guest-physical address of the available ring.
    pub avail_ring: u64,
    /// Guest-physical address of the used ring.
    pub used_ring: u64,
}

impl NetState {
    /// The pages that hold the tables of its queues.
    pub fn pages(&self) -> impl Iterator<Item = usize> {
        self.tables()
            .flat_map(|(at, len)| at / PAGE_SIZE..=at.saturating_add(len) / PAGE_SIZE)
            .map(|page| page as usize)
    }

    /// The ranges of the tables of its queues: address and length in bytes.
    fn tables(&self) -> impl Iterator<Item = (u64, u64)> {
        self.queues.into_iter().filter(|q| q.ready).flat_map(|q| {
            let size = u64::from(q.size);
            // Descriptors of 16 bytes; two bytes of flags and index, and an entry of 2 or 8 bytes
            // each, and the event field.
            [(q.desc_table, 16 * size), (q.avail_ring, 6 + 2 * size), (q.used_ring, 6 + 8 * size)]
        })
    }

    fn tables_overlap(&self) -> bool {
        let mut tables: Vec<_> = self.tables().collect();
        tables.sort_unstable();
        tables.windows(2).any(|pair| pair[0].0.saturating_add(pair[0].1) > pair[1].0)
    }
}

impl From<virtio_queue::QueueState> for QueueState {
    fn from(q: virtio_queue::QueueState) -> Self {
        Self {
            size: q.size,
            ready: q.ready,
            next_avail: q.next_avail,
            next_used: q.next_used,
            desc_table: q.desc_table,
            avail_ring: q.avail_ring,
            used_ring: q.used_ring,
        }
    }
}

impl NetState {
    /// The queues, if the state can be that of one of our guests.
    pub(super) fn check(&self, ram: &GuestRam) -> Result<[Queue; 2], Error> {
        // A rejected choice of the driver is rejected here too, and the guest finds out.
        let agreed = self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0;
        if agreed && self.driver_features & !OFFERED != 0 {
            return Err(Error::Features(self.driver_features & !OFFERED));
        }
        let queue = |n: usize| {
            let s = self.queues[n];
            if s.next_avail != s.next_used {
                return Err(Error::Indices(n, s.next_avail, s.next_used));
            }
            let queue = Queue::try_from(virtio_queue::QueueState {
                max_size: QUEUE_MAX,
                next_avail: s.next_avail,
                next_used: s.next_used,
                event_idx_enabled: false,
                size: s.size,
                ready: s.ready,
                desc_table: s.desc_table,
                avail_ring: s.avail_ring,
                used_ring: s.used_ring,
            })
            .map_err(|_| Error::Queue(n))?;
            if s.ready && !queue.is_valid(ram.mmap()) {
                return Err(Error::Queue(n));
            }
            Ok(queue)
        };
        let queues = [queue(0)?, queue(1)?];
        if self.tables_overlap() { Err(Error::Overlap) } else { Ok(queues) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Net, Own, Violation},
        *,
    };
    use crate::devices::tap::Tap;
    use proptest::prelude::*;
    use std::os::unix::net::UnixDatagram;
    use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_DRIVER_OK;
    use vmm_lite_lab::files::at_once;

    fn queue(at: u64) -> QueueState {
        QueueState {
            size: 256,
            ready: true,
            next_avail: 7,
            next_used: 7,
            desc_table: at,
            avail_ring: at + 0x1000,
            used_ring: at + 0x2000,
        }
    }

    fn state() -> NetState {
        NetState {
            mac: [2; 6],
            mtu: 1500,
            features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            status: 0,
            queues: [queue(0x10_0000), queue(0x11_0000)],
        }
    }

    #[test]
    fn buffers_in_flight_and_tables_that_overlap_are_refused() {
        let ram = GuestRam::new(4 << 20).unwrap();
        state().check(&ram).unwrap();
        let refused = |change: fn(&mut NetState)| {
            let mut state = state();
            change(&mut state);
            state.check(&ram).map(drop).unwrap_err()
        };
        assert_eq!(refused(|s| s.queues[1].next_avail = 9), Error::Indices(1, 9, 7));
        assert_eq!(refused(|s| s.queues[0].next_used = 6), Error::Indices(0, 7, 6));
        assert_eq!(refused(|s| s.queues[1] = s.queues[0]), Error::Overlap);
        assert_eq!(refused(|s| s.queues[0].used_ring = 0x10_1004), Error::Overlap);
        assert_eq!(refused(|s| s.queues[0].avail_ring = 0x10_0ffe), Error::Overlap);
    }

    fn device(mtu: u16) -> Net {
        // The other end holds what is sent.
        let (device, other) = UnixDatagram::pair().unwrap();
        std::mem::forget(other);
        device.set_nonblocking(true).unwrap();
        Net::with_mtu(Tap::over(device.into()), [2; 6], mtu)
    }

    #[test]
    fn longer_packets_than_the_devices_are_refused() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let mut net = device(1499);
        let before = net.capture();
        let device = "none".into();
        let refused = Error::Mtu(MtuTooSmall { guest: 1500, tap: 1499, device });
        assert_eq!(net.apply(&state(), &ram), Err(refused));
        assert_eq!(net.capture(), before, "nothing has changed");
        net.apply(&NetState { mtu: 1499, ..state() }, &ram).unwrap();
    }

    /// As in a refused state, or after a bug of ours.
    #[test]
    fn a_transmit_queue_that_never_empties_is_a_violation() {
        let ram = GuestRam::new(4 << 20).unwrap();
        let mut net = device(1500);
        net.restrict_to(Some(Own::new([2; 6], None)));
        let live = NetState { status: VIRTIO_CONFIG_S_DRIVER_OK, ..state() };
        net.apply(&live, &ram).unwrap();
        let [_, transmit] = net.registers.live_queues().unwrap();
        // What is returned counts as offered anew.
        transmit.set_next_used(live.queues[1].next_used + 1);
        transmit.set_used_ring_address(Some(live.queues[1].avail_ring as u32), None);
        ram.write(live.queues[1].desc_table + 8, &64_u32.to_le_bytes()).unwrap();
        ram.write(live.queues[1].desc_table, &0x12_0000_u64.to_le_bytes()).unwrap();
        ram.write(live.queues[1].avail_ring + 2, &8_u16.to_le_bytes()).unwrap();
        let flushed = at_once(move || net.flush(&ram));
        assert!(matches!(flushed, Err(Violation::Queue { queue: "transmit", .. })), "{flushed:?}");
    }

    proptest! {
        /// An accepted state has disjoint tables and no buffer in flight.
        #[test]
        fn any_state_is_sound_or_refused(
            ats in prop::collection::vec((0x10_0000_u64..0x10_6000).prop_map(|at| at & !15), 6),
            indices in prop::collection::vec(0_u16..3, 4),
        ) {
            let ram = GuestRam::new(4 << 20).unwrap();
            let mut state = state();
            for (n, q) in state.queues.iter_mut().enumerate() {
                let [desc, avail, used] = [0, 1, 2].map(|table| ats[3 * n + table]);
                (q.desc_table, q.avail_ring, q.used_ring) = (desc, avail, used);
                (q.next_avail, q.next_used) = (indices[2 * n], indices[2 * n + 1]);
            }
            if state.check(&ram).is_ok() {
                let mut bytes = std::collections::HashSet::new();
                for (at, len) in state.tables() {
                    prop_assert!((at..at + len).all(|byte| bytes.insert(byte)));
                }
                prop_assert!(state.queues.iter().all(|q| q.next_avail == q.next_used));
            }
        }
    }
}
