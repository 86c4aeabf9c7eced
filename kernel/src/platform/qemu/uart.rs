//! The serial ports: console, and quiesce requests.

use uart_16550::{
    Config, Uart16550,
    backend::PioBackend,
    spec::registers::{FifoTriggerLevel, IER},
};
use vmm_lite_interface::qemu::{CONSOLE_UART, QUIESCE_UART};

use crate::{cell::KernelCell, platform::ConsoleRead};

type Port = Option<Uart16550<PioBackend>>;

static CONSOLE: KernelCell<Port> = KernelCell::new(None);
static QUIESCE: KernelCell<Port> = KernelCell::new(None);

/// Sets up the console's port, and the other if it is to be used.
pub fn init(quiesce: bool) {
    CONSOLE.with(|port| *port = open(CONSOLE_UART));
    if quiesce {
        QUIESCE.with(|port| *port = open(QUIESCE_UART));
    }
}

fn open(base: u16) -> Port {
    // SAFETY: ports that the TSS opens, used by nothing else.
    let mut uart = unsafe { Uart16550::new_port(base) }.ok()?;
    uart.init(Config {
        interrupts: IER::DATA_READY,
        fifo_trigger_level: Some(FifoTriggerLevel::One),
        ..Config::DEFAULT
    })
    .ok()?;
    Some(uart)
}

/// Prints.
pub fn console_write(bytes: &[u8]) {
    write(&CONSOLE, bytes);
}

/// Reads what is there. The port has no end.
pub fn console_read(buffer: &mut [u8]) -> ConsoleRead {
    CONSOLE.with(|port| match port.as_mut().map_or(0, |uart| uart.receive_bytes(buffer)) {
        0 => ConsoleRead::Empty,
        count => ConsoleRead::Bytes(count),
    })
}

/// Whether something is there.
pub fn console_readable() -> bool {
    CONSOLE.with(|port| port.as_mut().is_some_and(|uart| uart.ready_to_receive().is_ok()))
}

/// A byte from the port for quiesce requests.
pub fn quiesce_byte() -> Option<u8> {
    QUIESCE.with(|port| port.as_mut()?.try_receive_byte().ok())
}

/// Answers there.
pub fn quiesce_write(bytes: &[u8]) {
    write(&QUIESCE, bytes);
}

fn write(port: &KernelCell<Port>, bytes: &[u8]) {
    port.with(|port| {
        if let Some(uart) = port {
            uart.send_bytes_exact(bytes);
        }
    });
}
