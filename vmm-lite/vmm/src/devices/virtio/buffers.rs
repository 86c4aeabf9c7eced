//! Where in guest memory the buffers of a chain of descriptors are.

use super::QUEUE_MAX;
use crate::memory::{Mmap, Writable};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};
use virtio_queue::DescriptorChain;

/// Room for the parts of one chain: their place for the kernel, and for the guest. It is reused for
/// each chain, so that none costs an allocation.
#[derive(Debug, Default)]
pub struct Buffers {
    iov: Vec<libc::iovec>,
    guest: Vec<(u64, usize)>,
}

// SAFETY: the pointers in `iov` are only used through `Parts`, which `gather` has just filled from
// guest memory and which keep that mapped.
unsafe impl Send for Buffers {}

impl Buffers {
    /// Gathers a chain whose parts must all be for the device to write (or all to read).
    ///
    /// # Errors
    /// What is wrong with the chain.
    pub fn gather<'b>(
        &'b mut self,
        mut chain: DescriptorChain<&Mmap>,
        ram: Writable<'b>,
        for_writing: bool,
    ) -> Result<Parts<'b>, String> {
        self.iov.clear();
        self.guest.clear();
        let mut size = 0;
        // virtio-queue stopped at an invalid chain if it ends before a descriptor says so.
        let mut unfinished = true;
        for descriptor in chain.by_ref() {
            let (address, len) = (descriptor.addr().0, descriptor.len() as usize);
            if descriptor.is_write_only() != for_writing {
                return Err(format!(
                    "the buffer at {address:#x} is {} the device to write",
                    if for_writing { "not for" } else { "for" }
                ));
            }
            let part = ram.slice(address, len).map_err(|e| format!("a buffer: {e}"))?;
            if self.iov.len() == usize::from(QUEUE_MAX) {
                return Err(format!("a chain of more than {QUEUE_MAX} buffers"));
            }
            self.iov
                .push(libc::iovec { iov_base: part.ptr_guard_mut().as_ptr().cast(), iov_len: len });
            self.guest.push((address, len));
            size += len;
            unfinished = descriptor.has_next();
        }
        if unfinished {
            return Err(
                "a chain of descriptors that loops, leaves the table, or is too long".into()
            );
        }
        Ok(Parts { ram, iov: &self.iov, guest: &self.guest, size })
    }
}

/// The buffers of one chain, which were checked to lie in guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'b> {
    ram: Writable<'b>,
    iov: &'b [libc::iovec],
    guest: &'b [(u64, usize)],
    size: usize,
}

impl<'b> Parts<'b> {
    /// How many bytes they have in total.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Writes them to `to` in one call, without a copy. Returns how many bytes were written; `None`
    /// if none can be for now.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn write_to(&self, to: BorrowedFd<'_>) -> io::Result<Option<usize>> {
        retried(|| {
            // SAFETY: `gather` has checked that they lie in guest memory, which `ram` keeps mapped.
            unsafe { libc::writev(to.as_raw_fd(), self.iov.as_ptr(), self.count()) }
        })
    }

    /// Reads from `from` into them in one call, without a copy, and marks what is written. Returns
    /// how many bytes were read; `None` if there are none for now.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn read_from(&self, from: BorrowedFd<'_>) -> io::Result<Option<usize>> {
        let read = retried(|| {
            // SAFETY: as in `write_to`. The guest does not run, which `ram` is the proof of, and
            // other threads access guest memory through raw pointers only.
            unsafe { libc::readv(from.as_raw_fd(), self.iov.as_ptr(), self.count()) }
        })?;
        if let Some(len) = read {
            // A TAP may return the length of a packet that did not fit.
            self.mark(len.min(self.size));
        }
        Ok(read)
    }

    fn count(&self) -> libc::c_int {
        // At most `QUEUE_MAX`.
        self.iov.len() as libc::c_int
    }

    /// Writes `bytes` at `offset`, as far as there is room.
    ///
    /// # Panics
    /// Never: the places were checked.
    pub fn write(&self, mut offset: usize, mut bytes: &[u8]) {
        for &(address, len) in self.guest {
            if bytes.is_empty() {
                return;
            }
            if offset >= len {
                offset -= len;
                continue;
            }
            let (now, later) = bytes.split_at(bytes.len().min(len - offset));
            self.ram.write(address + offset as u64, now).expect("checked when gathered");
            bytes = later;
            offset = 0;
        }
    }

    /// Reads the beginning, as much as `to` has room for. Returns what was read.
    ///
    /// # Panics
    /// Never: the places were checked.
    pub fn read<'t>(&self, to: &'t mut [u8]) -> &'t [u8] {
        let mut len = 0;
        for &(address, part) in self.guest {
            let now = part.min(to.len() - len);
            self.ram.read(address, &mut to[len..len + now]).expect("checked when gathered");
            len += now;
        }
        &to[..len]
    }

    /// Logs the first `written` bytes as written.
    fn mark(&self, mut written: usize) {
        for &(address, len) in self.guest {
            let n = len.min(written);
            self.ram.mark(address, n);
            written -= n;
        }
    }
}

/// Makes a call again that a signal has interrupted; `None` if it would block.
fn retried(call: impl Fn() -> libc::ssize_t) -> io::Result<Option<usize>> {
    loop {
        if let Ok(n) = usize::try_from(call()) {
            return Ok(Some(n));
        }
        match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            e if e.kind() == io::ErrorKind::Interrupted => {}
            e => return Err(e),
        }
    }
}
