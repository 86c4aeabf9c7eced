//! The devices that have registers, each in a window of guest-physical addresses.
//!
//! Console and clock are not among them. They have no registers but fields of the control page,
//! every VM has exactly one of each, and each needs what a device does not: the console the
//! process's streams, the clock the time that has passed since its capture.

use super::{
    Violation,
    device::{Device, RestoreError},
    state::DeviceState,
    virtio::WINDOW,
};
use crate::memory::Writable;
use std::any::Any;

/// Most devices of a VM.
pub const DEVICES_MAX: usize = 8;

/// The devices of a VM.
#[derive(Debug, Default)]
pub struct Bus {
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// Where its window begins.
    at: u64,
    device: Box<dyn Device>,
}

impl Bus {
    /// Adds a device whose registers begin at `at`.
    ///
    /// # Panics
    /// If there are [`DEVICES_MAX`] devices already, or one of them has registers there.
    pub fn attach(&mut self, at: u64, device: impl Device) {
        assert!(self.slots.len() < DEVICES_MAX, "no room for a {} device", device.name());
        if let Some(other) = self.slots.iter().find(|slot| slot.at.abs_diff(at) < WINDOW) {
            panic!("a {} and a {} device at {at:#x}", other.device.name(), device.name());
        }
        self.slots.push(Slot { at, device: Box::new(device) });
    }

    /// The devices, in the order in which they were added.
    pub fn devices_mut(&mut self) -> impl Iterator<Item = &mut dyn Device> {
        self.slots.iter_mut().map(|slot| slot.device.as_mut())
    }

    /// The devices of type `D`.
    pub fn of_kind<D: Device>(&self) -> impl Iterator<Item = &D> {
        self.slots.iter().filter_map(|slot| {
            let device: &dyn Any = slot.device.as_ref();
            device.downcast_ref()
        })
    }

    /// The devices of type `D`, to be changed.
    pub fn of_kind_mut<D: Device>(&mut self) -> impl Iterator<Item = &mut D> {
        self.slots.iter_mut().filter_map(|slot| {
            let device: &mut dyn Any = slot.device.as_mut();
            device.downcast_mut()
        })
    }

    /// Where the registers of the first device of type `D` begin.
    #[must_use]
    pub fn window_of<D: Device>(&self) -> Option<u64> {
        let is_one = |slot: &&Slot| (slot.device.as_ref() as &dyn Any).is::<D>();
        self.slots.iter().find(is_one).map(|slot| slot.at)
    }

    /// The guest reads at `address`.
    ///
    /// # Errors
    /// A [`Violation`], also if there is no device.
    pub fn read(&mut self, address: u64, data: &mut [u8]) -> Result<(), Violation> {
        let (device, offset) = self.at(address)?;
        device.read(offset, data)
    }

    /// The guest writes at `address`.
    ///
    /// # Errors
    /// A [`Violation`], also if there is no device.
    pub fn write(&mut self, address: u64, data: &[u8], ram: Writable<'_>) -> Result<(), Violation> {
        let (device, offset) = self.at(address)?;
        device.write(offset, data, ram)
    }

    /// The device with a register at `address`, and the offset in its window.
    fn at(&mut self, address: u64) -> Result<(&mut dyn Device, u64), Violation> {
        for slot in &mut self.slots {
            let offset = address.wrapping_sub(slot.at);
            if offset < WINDOW {
                return Ok((slot.device.as_mut(), offset));
            }
        }
        Err(Violation::Address(address))
    }

    /// The state of each device, in their order.
    #[must_use]
    pub fn save(&self) -> Vec<DeviceState> {
        self.slots.iter().map(|slot| slot.device.save()).collect()
    }

    /// Lets each device continue from its state.
    ///
    /// # Errors
    /// [`RestoreError`]; devices before the refused one have changed then.
    pub fn restore(
        &mut self,
        states: &[DeviceState],
        ram: Writable<'_>,
    ) -> Result<(), RestoreError> {
        if states.len() != self.slots.len() {
            return Err(RestoreError::Devices);
        }
        self.devices_mut().zip(states).try_for_each(|(device, state)| device.restore(state, ram))
    }

    /// The pages of guest memory that the devices read and write while the guest does not run.
    #[must_use]
    pub fn pages_in_use(&self) -> Vec<usize> {
        self.save().iter().flat_map(DeviceState::pages_in_use).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::net::{Net, tap::Tap};
    use crate::memory::GuestRam;
    use std::os::unix::net::UnixDatagram;

    const FIRST: u64 = 0xf000_0000;
    const SECOND: u64 = FIRST + WINDOW;

    fn net(mac: u8) -> Net {
        let (device, _) = UnixDatagram::pair().unwrap();
        Net::new(Tap::over(device.into()), [mac; 6], 1500)
    }

    fn two() -> Bus {
        let mut bus = Bus::default();
        bus.attach(FIRST, net(2));
        bus.attach(SECOND, net(6));
        bus
    }

    /// The first byte of the Ethernet address.
    fn mac(bus: &mut Bus, window: u64) -> Result<u8, Violation> {
        let mut data = [0];
        bus.read(window + 0x100, &mut data).map(|()| data[0])
    }

    #[test]
    fn each_device_is_found_in_its_window() {
        let (mut bus, ram) = (two(), GuestRam::new(2 << 20).unwrap());
        assert_eq!((mac(&mut bus, FIRST), mac(&mut bus, SECOND)), (Ok(2), Ok(6)));
        bus.write(SECOND + 0x70, &[1, 0, 0, 0], ram.writable_while_stopped()).unwrap();
        let status = bus.of_kind::<Net>().map(|net| net.capture().transport.status);
        assert_eq!(status.collect::<Vec<_>>(), [0, 1]);
        for outside in [0, FIRST - 1, SECOND + WINDOW] {
            assert_eq!(bus.read(outside, &mut [0]), Err(Violation::Address(outside)));
            assert_eq!(
                bus.write(outside, &[0], ram.writable_while_stopped()),
                Err(Violation::Address(outside))
            );
        }
    }

    #[test]
    #[should_panic(expected = "a network and a network device at 0xf00001ff")]
    fn windows_do_not_overlap() {
        two().attach(FIRST + WINDOW - 1, net(0));
    }

    #[test]
    fn devices_continue_from_their_own_states_and_only_from_as_many() {
        let (mut source, ram) = (two(), GuestRam::new(2 << 20).unwrap());
        source.write(SECOND + 0x70, &[3, 0, 0, 0], ram.writable_while_stopped()).unwrap();
        let states = source.save();
        let mut destination = two();
        for few in [&states[..0], &states[..1]] {
            assert_eq!(
                destination.restore(few, ram.writable_while_stopped()),
                Err(RestoreError::Devices)
            );
        }
        assert_ne!(destination.save(), states);
        destination.restore(&states, ram.writable_while_stopped()).unwrap();
        assert_eq!(destination.save(), states);
        destination.devices_mut().for_each(Device::reset);
        assert_eq!(destination.save(), two().save());
    }
}
