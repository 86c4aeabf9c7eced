//! Where descriptors for page faults come from.
//!
//! The system call makes them for processes that may serve kernel-mode faults, the device for those
//! that may open it. A process that is about to give up both rights keeps the device open or, where
//! the host has none, one descriptor made by the call. That descriptor is kept for the process's
//! lifetime and serves one guest memory after the other.

use super::{Error, UFFD};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use vmm_sys_util::{
    ioctl::{ioctl_with_mut_ref, ioctl_with_val},
    ioctl_io_nr, ioctl_iowr_nr,
};

/// Makes descriptors without any capability, if the file's mode permits opening it.
pub(super) const DEVICE: &str = "/dev/userfaultfd";

const UFFD_API: u64 = 0xaa;

const FEATURE_WRITES: u64 = 1 << 0;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_WRITES_SHMEM: u64 = 1 << 12;

#[repr(C)]
#[derive(Default)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

ioctl_io_nr!(USERFAULTFD_IOC_NEW, UFFD, 0x00);
ioctl_iowr_nr!(UFFDIO_API, UFFD, 0x3f, Api);

const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

#[derive(Debug)]
enum Kept {
    Device(File),
    Descriptor(OwnedFd),
}

static KEPT: OnceLock<Kept> = OnceLock::new();
/// Whether some memory uses the kept descriptor.
static LENT: AtomicBool = AtomicBool::new(false);

/// Opens now what later descriptors need, so that they need no privilege. Where that is not
/// possible, nothing changes.
pub fn keep() {
    if KEPT.get().is_some() {
        return;
    }
    let kept = match File::open(DEVICE) {
        Ok(device) => Kept::Device(device),
        Err(_) => match by_call().map_err(|_| ()).and_then(|fd| agreed(fd).map_err(|_| ())) {
            Ok(fd) => Kept::Descriptor(fd),
            Err(()) => return,
        },
    };
    // Another thread may have been first.
    let _ = KEPT.set(kept);
}

/// A descriptor for which kernel and VMM have agreed on the features.
#[derive(Debug)]
pub(super) enum Descriptor {
    /// For one memory.
    Own(OwnedFd),
    /// Lent: returned when the memory is dropped.
    Kept(&'static OwnedFd),
}

impl Descriptor {
    /// From the system call, or else from what was kept.
    pub fn get() -> Result<Self, Error> {
        let error = match by_call() {
            Ok(fd) => return agreed(fd).map(Self::Own),
            Err(e) => e,
        };
        match error.raw_os_error() {
            Some(libc::EPERM) => {}
            Some(libc::ENOSYS) => return Err(Error::Lacks("userfaultfd")),
            _ => return Err(Error::Call { doing: "get a descriptor", source: error }),
        }
        keep();
        match KEPT.get() {
            Some(Kept::Device(device)) => agreed(by_device(device)?).map(Self::Own),
            Some(Kept::Descriptor(fd)) if !LENT.swap(true, SeqCst) => Ok(Self::Kept(fd)),
            _ => Err(Error::Forbidden(error)),
        }
    }

    /// Whether the descriptor outlives this value.
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::Kept(_))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Kept(fd) => fd.as_fd(),
        }
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_kept() {
            LENT.store(false, SeqCst);
        }
    }
}

fn by_call() -> io::Result<OwnedFd> {
    // SAFETY: takes flags only; the result is checked.
    made(unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) } as i32)
}

fn by_device(device: &File) -> Result<OwnedFd, Error> {
    // SAFETY: takes flags only; the result is checked.
    made(unsafe { ioctl_with_val(device, USERFAULTFD_IOC_NEW(), FLAGS as libc::c_ulong) })
        .map_err(|source| Error::Call { doing: "get a descriptor", source })
}

fn made(fd: i32) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Tells the kernel which features will be used. Once for each descriptor.
fn agreed(fd: OwnedFd) -> Result<OwnedFd, Error> {
    let wanted = FEATURE_WRITES | FEATURE_MISSING_SHMEM | FEATURE_WRITES_SHMEM;
    let mut api = Api { api: UFFD_API, features: wanted, ioctls: 0 };
    // SAFETY: the structure that this call reads and fills.
    if unsafe { ioctl_with_mut_ref(&fd, UFFDIO_API(), &mut api) } != 0 {
        return Err(Error::Lacks(
            "write protection of shared memory by userfaultfd (it came with Linux 5.19)",
        ));
    }
    Ok(fd)
}
