//! The state of a transport and its queues, as it is captured, and what is required of one.

use super::QUEUE_MAX;
use crate::memory::Writable;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::VIRTIO_CONFIG_S_FEATURES_OK;
use virtio_queue::{Queue, QueueT};
use vmm_lite_interface::layout::PAGE_SIZE;

/// Why a device cannot continue from a state.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum TransportError {
    /// Features this VMM does not offer.
    #[error("the driver uses features {0:#x} that this vmm-lite does not offer")]
    Features(u64),
    /// An invalid queue.
    #[error("queue {0} does not fit this guest's memory")]
    Queue(usize),
    /// A queue with buffers in flight, which our devices never leave behind.
    #[error(
        "queue {0} has taken {taken} buffers and given back {given}, where both should be the same",
        taken = .1,
        given = .2
    )]
    Indices(usize, u16, u16),
    /// Tables that overlap: a write to one would change another.
    #[error("tables of the queues overlap in the guest's memory")]
    Overlap,
}

/// The registers of a device with `N` queues.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound(
    serialize = "[QueueState; N]: Serialize",
    deserialize = "[QueueState; N]: Deserialize<'de>"
))]
pub struct TransportState<const N: usize> {
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
    /// Its queues.
    pub queues: [QueueState; N],
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

impl QueueState {
    /// The queue, if it can be number `n` of one of our guests.
    fn check(&self, n: usize, ram: Writable<'_>) -> Result<Queue, TransportError> {
        if self.next_avail != self.next_used {
            return Err(TransportError::Indices(n, self.next_avail, self.next_used));
        }
        let queue = Queue::try_from(virtio_queue::QueueState {
            max_size: QUEUE_MAX,
            next_avail: self.next_avail,
            next_used: self.next_used,
            event_idx_enabled: false,
            size: self.size,
            ready: self.ready,
            desc_table: self.desc_table,
            avail_ring: self.avail_ring,
            used_ring: self.used_ring,
        })
        .map_err(|_| TransportError::Queue(n))?;
        if self.ready && !queue.is_valid(ram.mmap()) {
            return Err(TransportError::Queue(n));
        }
        Ok(queue)
    }
}

impl<const N: usize> TransportState<N> {
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

    /// The queues, if the state can be that of one of our guests, on a device that offers
    /// `features`.
    pub(super) fn check(
        &self,
        features: u64,
        ram: Writable<'_>,
    ) -> Result<[Queue; N], TransportError> {
        // A rejected choice of the driver is rejected here too, and the guest finds out.
        let agreed = self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0;
        if agreed && self.driver_features & !features != 0 {
            return Err(TransportError::Features(self.driver_features & !features));
        }
        let mut queues = super::transport::unused_queues();
        for (n, (queue, state)) in queues.iter_mut().zip(&self.queues).enumerate() {
            *queue = state.check(n, ram)?;
        }
        if self.tables_overlap() { Err(TransportError::Overlap) } else { Ok(queues) }
    }
}

#[cfg(test)]
impl QueueState {
    /// A queue without buffers in flight, whose tables begin at `at`.
    pub(crate) fn idle_at(at: u64) -> Self {
        Self {
            size: 256,
            ready: true,
            next_avail: 7,
            next_used: 7,
            desc_table: at,
            avail_ring: at + 0x1000,
            used_ring: at + 0x2000,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestRam;
    use proptest::prelude::*;

    const FEATURES: u64 = 1 << 32;

    fn state() -> TransportState<2> {
        TransportState {
            features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            status: 0,
            queues: [QueueState::idle_at(0x10_0000), QueueState::idle_at(0x11_0000)],
        }
    }

    #[test]
    fn buffers_in_flight_and_tables_that_overlap_are_refused() {
        let ram = GuestRam::new(4 << 20).unwrap();
        state().check(FEATURES, ram.writable_while_stopped()).unwrap();
        let refused = |change: fn(&mut TransportState<2>)| {
            let mut state = state();
            change(&mut state);
            state.check(FEATURES, ram.writable_while_stopped()).map(drop).unwrap_err()
        };
        use TransportError::{Features, Indices, Overlap, Queue};
        assert_eq!(refused(|s| s.queues[1].next_avail = 9), Indices(1, 9, 7));
        assert_eq!(refused(|s| s.queues[0].next_used = 6), Indices(0, 7, 6));
        assert_eq!(refused(|s| s.queues[1] = s.queues[0]), Overlap);
        assert_eq!(refused(|s| s.queues[0].used_ring = 0x10_1004), Overlap);
        assert_eq!(refused(|s| s.queues[0].avail_ring = 0x10_0ffe), Overlap);
        assert_eq!(refused(|s| s.queues[1].used_ring = 1 << 40), Queue(1));
        let unoffered =
            |s: &mut TransportState<2>| (s.status, s.driver_features) = (8, 1 << 32 | 4);
        assert_eq!(refused(unoffered), Features(4));
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
            if state.check(FEATURES, ram.writable_while_stopped()).is_ok() {
                let mut bytes = std::collections::HashSet::new();
                for (at, len) in state.tables() {
                    prop_assert!((at..at + len).all(|byte| bytes.insert(byte)));
                }
                prop_assert!(state.queues.iter().all(|q| q.next_avail == q.next_used));
            }
        }
    }
}
