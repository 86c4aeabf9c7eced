//! Takes chains of descriptors off a queue, and returns them.

use crate::memory::{Mmap, Writable};
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

/// Takes the next chain that the driver has made available, if there is one.
///
/// # Errors
/// What is wrong with the queue.
pub fn next<'m>(
    queue: &mut Queue,
    ram: Writable<'m>,
) -> Result<Option<DescriptorChain<&'m Mmap>>, String> {
    Ok(queue.iter(ram.mmap()).map_err(|e| e.to_string())?.next())
}

/// Undoes the last [`next`].
pub fn put_back(queue: &mut Queue) {
    queue.set_next_avail(queue.next_avail().wrapping_sub(1));
}

/// Returns the chain that begins with descriptor `head` to the driver, with `len` bytes written.
///
/// # Errors
/// What is wrong with the queue.
pub fn done(queue: &mut Queue, ram: Writable<'_>, head: u16, len: usize) -> Result<(), String> {
    queue.add_used(ram.mmap(), head, len as u32).map_err(|e| e.to_string())
}
