//! The registers of the device: virtio-mmio version 2 with a virtio-net configuration space.

use super::{Violation, state, state::NetState};
use crate::{
    devices::tap::{TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6, VNET_HEADER},
    memory::GuestRam,
};
use virtio_bindings::{
    virtio_config::{
        VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
        VIRTIO_F_VERSION_1,
    },
    virtio_ids::VIRTIO_ID_NET,
    virtio_mmio::*,
    virtio_net::{
        VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
        VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC,
        VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
    },
};
use virtio_queue::{Queue, QueueT};

/// Most descriptors of a queue.
pub(super) const QUEUE_MAX: u16 = 256;
/// Number of the receive queue, and of the transmit queue.
const QUEUES: [&str; 2] = ["receive", "transmit"];
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"lite");
const CONFIG: u64 = VIRTIO_MMIO_CONFIG as u64;
const LINK_UP: u16 = 1;
const ETHERNET_HEADER: usize = 14;
/// Largest frame where segments may exceed the MTU.
const SEGMENT_MAX: usize = 65_535 + ETHERNET_HEADER;

/// The features that the device offers.
pub(super) const OFFERED: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_NET_F_MAC
    | 1 << VIRTIO_NET_F_MTU
    | 1 << VIRTIO_NET_F_STATUS
    | 1 << VIRTIO_NET_F_CSUM
    | 1 << VIRTIO_NET_F_GUEST_CSUM
    | 1 << VIRTIO_NET_F_HOST_TSO4
    | 1 << VIRTIO_NET_F_HOST_TSO6
    | 1 << VIRTIO_NET_F_GUEST_TSO4
    | 1 << VIRTIO_NET_F_GUEST_TSO6;

/// The size that a receive buffer must have, with its header, for every frame that the TAP may
/// deliver under these offloads.
pub(super) fn frame_max(offload: u32, mtu: u16) -> usize {
    let segments = offload & (TUN_F_TSO4 | TUN_F_TSO6) != 0;
    VNET_HEADER + if segments { SEGMENT_MAX } else { usize::from(mtu) + ETHERNET_HEADER }
}

/// The device's registers, the driver's view.
#[derive(Debug)]
pub(super) struct Registers {
    mac: [u8; 6],
    mtu: u16,
    features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    status: u32,
    queues: [Queue; 2],
}

impl Registers {
    pub(super) fn new(mac: [u8; 6], mtu: u16) -> Self {
        let queue = || Queue::new(QUEUE_MAX).expect("a power of two");
        Self {
            mac,
            mtu,
            features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            status: 0,
            queues: [queue(), queue()],
        }
    }

    pub(super) fn mtu(&self) -> u16 {
        self.mtu
    }

    fn has(&self, feature: u32) -> bool {
        self.driver_features >> feature & 1 == 1
    }

    /// The offloads that the TAP may use for this driver.
    pub(super) fn offload(&self) -> u32 {
        if !self.has(VIRTIO_NET_F_GUEST_CSUM) || self.status & VIRTIO_CONFIG_S_DRIVER_OK == 0 {
            return 0;
        }
        let tso4 = if self.has(VIRTIO_NET_F_GUEST_TSO4) { TUN_F_TSO4 } else { 0 };
        let tso6 = if self.has(VIRTIO_NET_F_GUEST_TSO6) { TUN_F_TSO6 } else { 0 };
        TUN_F_CSUM | tso4 | tso6
    }

    /// The queues, once the driver has started the device.
    pub(super) fn live_queues(&mut self) -> Option<[&mut Queue; 2]> {
        let live = self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
            && self.status & VIRTIO_CONFIG_S_FAILED == 0
            && self.queues.iter().all(QueueT::ready);
        live.then(|| self.queues.each_mut())
    }

    pub(super) fn read(&self, offset: u64, data: &mut [u8]) -> Result<(), Violation> {
        if offset >= CONFIG {
            self.read_config(offset - CONFIG, data);
            return Ok(());
        }
        if data.len() != 4 || !offset.is_multiple_of(4) {
            return Err(wrong(format!("a read of {} bytes of register {offset:#x}", data.len())));
        }
        let queue = self.queues.get(self.queue_sel as usize);
        let value = match offset as u32 {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => 2,
            VIRTIO_MMIO_DEVICE_ID => VIRTIO_ID_NET,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.features_sel {
                0 => OFFERED as u32,
                1 => (OFFERED >> 32) as u32,
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

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac);
        config[6..8].copy_from_slice(&LINK_UP.to_le_bytes());
        config[8..10].copy_from_slice(&1_u16.to_le_bytes());
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        for (i, to) in data.iter_mut().enumerate() {
            *to = config.get(offset as usize + i).copied().unwrap_or(0);
        }
    }

    /// A write; returns whether the offloads may have changed.
    pub(super) fn write(
        &mut self,
        offset: u64,
        data: &[u8],
        ram: &GuestRam,
    ) -> Result<bool, Violation> {
        if offset >= CONFIG {
            return Err(wrong("a write to its configuration, which is read-only".into()));
        }
        let Ok(bytes) = <[u8; 4]>::try_from(data) else {
            return Err(wrong(format!("a write of {} bytes to register {offset:#x}", data.len())));
        };
        let value = u32::from_le_bytes(bytes);
        match offset as u32 {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.driver_features_sel = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.accept_features(value)?,
            VIRTIO_MMIO_QUEUE_SEL => self.queue_sel = value,
            VIRTIO_MMIO_QUEUE_READY => self.set_ready(value, ram)?,
            VIRTIO_MMIO_STATUS => {
                self.set_status(value);
                return Ok(true);
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
                return Err(wrong(format!(
                    "a write to register {offset:#x}, which cannot be written"
                )));
            }
        }
        Ok(false)
    }

    fn accept_features(&mut self, value: u32) -> Result<(), Violation> {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return Err(wrong("features changed after they were agreed on".into()));
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
        if value == 0 {
            *self = Self::new(self.mac, self.mtu);
            return;
        }
        self.status = value;
        let agreed = self.driver_features & !OFFERED == 0 && self.has(VIRTIO_F_VERSION_1);
        if !agreed {
            // The driver reads it back, and finds its choice rejected.
            self.status &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
    }

    fn selected(&mut self) -> Result<(&mut Queue, &'static str), Violation> {
        let n = self.queue_sel as usize;
        match (self.queues.get_mut(n), QUEUES.get(n)) {
            (Some(queue), Some(name)) => Ok((queue, name)),
            _ => Err(wrong(format!("queue {n}, which does not exist"))),
        }
    }

    fn set_up_queue(&mut self, register: u32, value: u32) -> Result<(), Violation> {
        let (queue, name) = self.selected()?;
        if queue.ready() {
            return Err(broken(name, "was set up anew while it was live".into()));
        }
        match register {
            VIRTIO_MMIO_QUEUE_NUM => {
                let size = u16::try_from(value).unwrap_or(0);
                queue
                    .try_set_size(size)
                    .map_err(|_| broken(name, format!("{value} descriptors cannot be")))?;
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

    fn set_ready(&mut self, value: u32, ram: &GuestRam) -> Result<(), Violation> {
        let (queue, name) = self.selected()?;
        if value & 1 == 0 {
            queue.set_ready(false);
            return Ok(());
        }
        queue.set_ready(true);
        if !queue.is_valid(ram.mmap()) {
            let (d, a, u) = (queue.desc_table(), queue.avail_ring(), queue.used_ring());
            return Err(broken(
                name,
                format!(
                    "{} descriptors at {d:#x}, available ring at {a:#x}, used ring at {u:#x} do \
                     not all lie in memory",
                    queue.size()
                ),
            ));
        }
        // The doorbell is the only notification.
        queue.disable_notification(ram.mmap()).map_err(|e| broken(name, e.to_string()))
    }

    pub(super) fn capture(&self) -> NetState {
        NetState {
            mac: self.mac,
            mtu: self.mtu,
            features_sel: self.features_sel,
            driver_features_sel: self.driver_features_sel,
            driver_features: self.driver_features,
            queue_sel: self.queue_sel,
            status: self.status,
            queues: self.queues.each_ref().map(|q| q.state().into()),
        }
    }

    pub(super) fn apply(&mut self, state: &NetState, ram: &GuestRam) -> Result<(), state::Error> {
        let queues = state.check(ram)?;
        *self = Self {
            mac: state.mac,
            mtu: state.mtu,
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

fn wrong(what: String) -> Violation {
    Violation::NetRegister(what)
}

fn broken(queue: &'static str, what: String) -> Violation {
    Violation::Queue { queue, what }
}
