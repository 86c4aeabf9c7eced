//! A serial port that keeps what it received until it is read.

use alloc::collections::VecDeque;

use uart_16550::{
    Config, Uart16550,
    backend::PioBackend,
    spec::registers::{FifoTriggerLevel, IER},
};

use crate::cpu::KernelCell;

/// Most bytes that are kept. What comes then stays in the device, and so with the sender.
const KEPT: usize = 4096;

/// See the module. Without a device, what is sent is lost and nothing is received.
pub struct SerialPort(KernelCell<State>);

struct State {
    device: Option<Uart16550<PioBackend>>,
    received: VecDeque<u8>,
    /// The device may have more, for which it will not interrupt again.
    more: bool,
}

impl SerialPort {
    /// Not open yet.
    pub const fn new() -> Self {
        Self(KernelCell::new(State { device: None, received: VecDeque::new(), more: false }))
    }

    /// Sets the device up, if it is there, so that it interrupts for each byte that arrives.
    ///
    /// # Safety
    /// The TSS opens the ports from `base` on, and nothing else uses them.
    pub unsafe fn open(&self, base: u16) {
        // SAFETY: as the caller promises.
        let Ok(mut device) = (unsafe { Uart16550::new_port(base) }) else { return };
        let config = Config {
            interrupts: IER::DATA_READY,
            fifo_trigger_level: Some(FifoTriggerLevel::One),
            ..Config::DEFAULT
        };
        if device.init(config).is_ok() {
            self.0.with(|s| s.device = Some(device));
        }
    }

    /// Sends all of it.
    pub fn send(&self, bytes: &[u8]) {
        self.0.with(|s| {
            if let Some(device) = &mut s.device {
                device.send_bytes_exact(bytes);
            }
        });
    }

    /// Reads what the device has. Returns whether there is something to [`take`](Self::take).
    pub fn receive(&self) -> bool {
        self.0.with(|s| {
            s.fill();
            !s.received.is_empty()
        })
    }

    /// Whether there is something to [`take`](Self::take).
    pub fn readable(&self) -> bool {
        self.0.with(|s| !s.received.is_empty())
    }

    /// Copies what was received into `buffer`; returns how many bytes.
    pub fn take(&self, buffer: &mut [u8]) -> usize {
        self.0.with(|s| {
            let count = s.received.len().min(buffer.len());
            buffer.iter_mut().zip(s.received.drain(..count)).for_each(|(to, byte)| *to = byte);
            if s.more {
                s.fill();
            }
            count
        })
    }
}

impl State {
    fn fill(&mut self) {
        let Some(device) = &mut self.device else { return };
        self.more = true;
        while self.received.len() < KEPT {
            match device.try_receive_byte() {
                Ok(byte) => self.received.push_back(byte),
                Err(_) => {
                    self.more = false;
                    return;
                }
            }
        }
    }
}
