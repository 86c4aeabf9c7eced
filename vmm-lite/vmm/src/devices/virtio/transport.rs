//! The registers of a device: virtio-mmio version 2.

use super::{Model, QUEUE_MAX, TransportError, TransportState, Violation};
use crate::memory::Writable;
use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
        VIRTIO_F_VERSION_1,
    },
    virtio_mmio::*,
};
use virtio_queue::{Queue, QueueT};

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"lite");
const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;

/// What a write to a register means to the device behind it.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// The status has changed, and with it maybe whether the driver has started the device.
    Status,
    /// The driver wants the device reset, which the device has to do.
    Reset,
}

/// The registers of a device with `N` queues.
#[derive(Debug)]
pub struct Transport<const N: usize> {
    model: &'static Model<N>,
    features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    status: u32,
    queues: [Queue; N],
}

pub(super) fn unused_queues<const N: usize>() -> [Queue; N] {
    std::array::from_fn(|_| Queue::new(QUEUE_MAX).expect("a power of two"))
}

impl<const N: usize> Transport<N> {
    /// The registers of a device of this kind, as after a reset.
    #[must_use]
    pub fn new(model: &'static Model<N>) -> Self {
        Self {
            model,
            features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            status: 0,
            queues: unused_queues(),
        }
    }

    /// Resets it.
    pub fn reset(&mut self) {
        *self = Self::new(self.model);
    }

    /// Whether the driver has accepted a feature.
    #[must_use]
    pub fn has(&self, feature: u32) -> bool {
        self.driver_features >> feature & 1 == 1
    }

    /// Whether the driver has started the device.
    #[must_use]
    pub fn started(&self) -> bool {
        self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
    }

    /// The queues, once the driver has started the device.
    pub fn live_queues(&mut self) -> Option<[&mut Queue; N]> {
        let live = self.started()
            && self.status & VIRTIO_CONFIG_S_FAILED == 0
            && self.queues.iter().all(QueueT::ready);
        live.then(|| self.queues.each_mut())
    }

    /// The driver reads at `offset`. `config` is the device's configuration space.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn read(&self, offset: u64, data: &mut [u8], config: &[u8]) -> Result<(), Violation> {
        if let Some(at) = offset.checked_sub(CONFIG) {
            for (i, to) in data.iter_mut().enumerate() {
                *to = config.get(at as usize + i).copied().unwrap_or(0);
            }
            return Ok(());
        }
        if data.len() != 4 || !offset.is_multiple_of(4) {
            let what = format!("a read of {} bytes of register {offset:#x}", data.len());
            return Err(self.model.wrong(what));
        }
        let queue = self.queues.get(self.queue_sel as usize);
        let value = match offset as u32 {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => 2,
            VIRTIO_MMIO_DEVICE_ID => self.model.id,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.features_sel {
                0 => self.model.features as u32,
                1 => (self.model.features >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |q| u32::from(q.max_size())),
            VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |q| u32::from(q.ready())),
            VIRTIO_MMIO_STATUS => self.status,
            // No shared memory regions.
            VIRTIO_MMIO_SHM_LEN_LOW
            | VIRTIO_MMIO_SHM_LEN_HIGH
            | VIRTIO_MMIO_SHM_BASE_LOW
            | VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        };
        data.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }

    /// The driver writes at `offset`.
    ///
    /// # Errors
    /// A [`Violation`].
    pub fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        ram: Writable<'_>,
    ) -> Result<Change, Violation> {
        if offset >= CONFIG {
            let what = "a write to its configuration, which is read-only".into();
            return Err(self.model.wrong(what));
        }
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            let what = format!("a write of {} bytes to register {offset:#x}", data.len());
            return Err(self.model.wrong(what));
        };
        let value = u32::from_le_bytes(bytes);
        match offset as u32 {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.accept_features(value)?,
            VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            VIRTIO_MMIO_QUEUE_READY => self.set_ready(value, ram)?,
            VIRTIO_MMIO_STATUS if value == 0 => return Ok(Change::Reset),
            VIRTIO_MMIO_STATUS => {
                self.set_status(value);
                return Ok(Change::Status);
            }
            VIRTIO_MMIO_QUEUE_NUM
            | VIRTIO_MMIO_QUEUE_DESC_LOW
            | VIRTIO_MMIO_QUEUE_DESC_HIGH
            | VIRTIO_MMIO_QUEUE_AVAIL_LOW
            | VIRTIO_MMIO_QUEUE_AVAIL_HIGH
            | VIRTIO_MMIO_QUEUE_USED_LOW
            | VIRTIO_MMIO_QUEUE_USED_HIGH => self.set_up_queue(offset as u32, value)?,
            // The doorbell replaces notifications; there are no interrupts to acknowledge.
            VIRTIO_MMIO_QUEUE_NOTIFY | VIRTIO_MMIO_INTERRUPT_ACK => {}
            _ => {
                let what = format!("a write to register {offset:#x}, which cannot be written");
                return Err(self.model.wrong(what));
            }
        }
        Ok(Change::None)
    }

    fn accept_features(&mut self, value: u32) -> Result<(), Violation> {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return Err(self.model.wrong("features changed after they were agreed on".into()));
        }
        let value = u64::from(value);
        match self.driver_features_sel {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            _ => {}
        }
        Ok(())
    }

    fn set_status(&mut self, value: u32) {
        self.status = value;
        let unoffered = self.driver_features & !self.model.features;
        if unoffered != 0 || !self.has(VIRTIO_F_VERSION_1) {
            // The driver reads it back, and finds its choice rejected.
            self.status &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
    }

    /// The selected queue and its number.
    fn selected(&mut self) -> Result<(&mut Queue, usize), Violation> {
        let (n, model) = (self.queue_sel as usize, self.model);
        match self.queues.get_mut(n) {
            Some(queue) => Ok((queue, n)),
            None => Err(model.wrong(format!("queue {n}, which does not exist"))),
        }
    }

    fn set_up_queue(&mut self, register: u32, value: u32) -> Result<(), Violation> {
        let model = self.model;
        let (queue, n) = self.selected()?;
        if queue.ready() {
            return Err(model.broken(n, "was set up anew while it was live".into()));
        }
        match register {
            VIRTIO_MMIO_QUEUE_NUM => {
                let size = u16::try_from(value).unwrap_or(0);
                let refused = |_| model.broken(n, format!("{value} descriptors cannot be"));
                queue.try_set_size(size).map_err(refused)?;
            }
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            _ => queue.set_used_ring_address(None, Some(value)),
        }
        Ok(())
    }

    fn set_ready(&mut self, value: u32, ram: Writable<'_>) -> Result<(), Violation> {
        let model = self.model;
        let (queue, n) = self.selected()?;
        if value & 1 == 0 {
            queue.set_ready(false);
            return Ok(());
        }
        queue.set_ready(true);
        if !queue.is_valid(ram.mmap()) {
            let (d, a, u) = (queue.desc_table(), queue.avail_ring(), queue.used_ring());
            let what = format!(
                "{} descriptors at {d:#x}, available ring at {a:#x}, used ring at {u:#x} do not \
                 all lie in memory",
                queue.size()
            );
            return Err(model.broken(n, what));
        }
        // The doorbell is the only notification.
        queue.disable_notification(ram.mmap()).map_err(|e| model.broken(n, e.to_string()))
    }

    /// The state to capture. The queues are settled: nothing that was taken off a ring is
    /// unfinished.
    #[must_use]
    pub fn capture(&self) -> TransportState<N> {
        TransportState {
            features_sel: self.features_sel,
            driver_features_sel: self.driver_features_sel,
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            status: self.status,
            queues: self.queues.each_ref().map(|q| q.state().into()),
        }
    }

    /// Continues from a captured state.
    ///
    /// # Errors
    /// [`TransportError`]; nothing has changed then.
    pub fn apply(
        &mut self,
        state: &TransportState<N>,
        ram: Writable<'_>,
    ) -> Result<(), TransportError> {
        let queues = state.check(self.model.features, ram)?;
        *self = Self {
            model: self.model,
            features_sel: state.features_sel,
            driver_features_sel: state.driver_features_sel,
            driver_features: state.driver_features,
            queue_sel: state.queue_sel,
            status: state.status,
            queues,
        };
        Ok(())
    }
}
