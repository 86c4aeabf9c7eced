//! Where the same image finds the world under QEMU (`-M microvm`): fixed ports, and the lines by which it is quiesced.
//!
//! # Exit
//! The guest writes its exit code as one byte to [`EXIT_CODE_PORT`] (`isa-debugcon`), then any byte to [`EXIT_PORT`]
//! (`isa-debug-exit`), which ends QEMU. The second alone would lose the code's upper bit, and could not tell a
//! code of 0 from a failure of QEMU's own. Where a device is missing, the write goes nowhere: halt after it.
//!
//! # Quiesce
//! With the boot parameter `quiesce=uart` the guest listens on the second serial port, [`QUIESCE_UART`]:
//!
//! ```text
//! host                         guest
//! quiesce N          →
//!                    ←         quiesced N      hooks have run, queues are settled; it waits and changes nothing
//!      (any number of moves and pauses)
//! resume N REASON    →                         REASON: the number of a [`ResumeReason`](crate::control::ResumeReason)
//!                    ←         resumed N       hooks have been told; it runs
//! ```
//! N is decimal and fits `u32`; the host counts it up. Lines end with `\n`. A line that is none of these is ignored. A guest that
//! is asked to quiesce while it is quiescent answers the new number and stays so.

/// First serial port (16550): the console.
pub const CONSOLE_UART: u16 = 0x3f8;
/// Second serial port (16550), IRQ 3: quiesce requests.
pub const QUIESCE_UART: u16 = 0x2f8;
/// `isa-debugcon`: takes the exit code, one byte.
pub const EXIT_CODE_PORT: u16 = 0xe9;
/// `isa-debug-exit`: a byte written here ends QEMU.
pub const EXIT_PORT: u16 = 0xf4;
