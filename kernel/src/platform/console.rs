//! The console: byte rings under vmm-lite, a 16550 under QEMU.

use core::{ptr, sync::atomic::Ordering};

use vmm_lite_interface::{
    control::ControlPage,
    doorbell::Doorbell,
    layout::{CONSOLE_IN, CONSOLE_IN_SIZE, CONSOLE_OUT, CONSOLE_OUT_SIZE},
};

use super::{control, qemu, vmm_lite};
use crate::sched::WaitQueue;

/// Threads that wait for input.
pub static CONSOLE_READABLE: WaitQueue = WaitQueue::new();

/// What a read found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsoleRead {
    /// So many bytes.
    Bytes(usize),
    /// Nothing yet.
    Empty,
    /// Nothing any more.
    End,
}

/// Prints.
pub fn console_write(bytes: &[u8]) {
    match control() {
        Some(control) => write_ring(control, bytes),
        None => qemu::console_write(bytes),
    }
}

/// Reads what is there.
pub fn console_read(buffer: &mut [u8]) -> ConsoleRead {
    match control() {
        Some(control) => read_ring(control, buffer),
        None => qemu::console_read(buffer),
    }
}

fn write_ring(control: &ControlPage, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let head = control.console_out.head.load(Ordering::Relaxed);
        let tail = control.console_out.tail.load(Ordering::Acquire);
        let room = (CONSOLE_OUT_SIZE - head.wrapping_sub(tail)) as usize;
        let (now, later) = bytes.split_at(bytes.len().min(room));
        for (n, byte) in now.iter().enumerate() {
            let at = u64::from(head.wrapping_add(n as u32) & (CONSOLE_OUT_SIZE - 1));
            // SAFETY: inside the ring, which vmm-lite put there and which only this code writes.
            unsafe {
                ptr::with_exposed_provenance_mut::<u8>((CONSOLE_OUT + at) as usize)
                    .write_volatile(*byte)
            };
        }
        control.console_out.head.store(head.wrapping_add(now.len() as u32), Ordering::Release);
        vmm_lite::ring(Doorbell::CONSOLE);
        bytes = later;
    }
}

fn read_ring(control: &ControlPage, buffer: &mut [u8]) -> ConsoleRead {
    let eof = control.console_in_eof.load(Ordering::Acquire) != 0;
    let head = control.console_in.head.load(Ordering::Acquire);
    let tail = control.console_in.tail.load(Ordering::Relaxed);
    let count = (head.wrapping_sub(tail) as usize).min(buffer.len());
    if count == 0 {
        return if eof { ConsoleRead::End } else { ConsoleRead::Empty };
    }
    for (n, byte) in buffer[..count].iter_mut().enumerate() {
        let at = u64::from(tail.wrapping_add(n as u32) & (CONSOLE_IN_SIZE - 1));
        // SAFETY: inside the ring; the VMM does not touch what lies between tail and head.
        *byte = unsafe {
            ptr::with_exposed_provenance::<u8>((CONSOLE_IN + at) as usize).read_volatile()
        };
    }
    control.console_in.tail.store(tail.wrapping_add(count as u32), Ordering::Release);
    ConsoleRead::Bytes(count)
}
