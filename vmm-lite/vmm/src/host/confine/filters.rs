//! The system calls of each thread.
//!
//! Each thread's filter is composed of groups of calls, and each group says why it is needed. What
//! no thread may do has no entry: execute a program, trace another process, mount, load a module or
//! a BPF program, become another user, map memory executable, start a process.

use super::{
    calls::{Arg, Calls, is, masked},
    threads::Thread,
};
use kvm_bindings as kvm;
use libc as c;

impl Thread {
    pub(super) fn calls(self) -> Calls {
        match self {
            Self::Vcpu => common().and(run_guest()),
            // The watchdog reads the CPU time of other threads of this process through a clock.
            Self::Stdin | Self::Watchdog => common(),
            Self::ConsoleIn => common().any(&[c::SYS_recvfrom]),
            Self::Control => common()
                .and(start_thread(Self::ConsoleIn))
                .and(start_thread(Self::Replication))
                .and(sockets())
                .any(&[c::SYS_eventfd2])
                .and(connect())
                .and(ioctls(&[c::TIOCOUTQ]))
                .and(hold_guest())
                .and(copy_guest())
                .and(watch_memory())
                .and(urgency()),
            Self::Loader => common().and(serve_faults()).any(&[c::SYS_pread64]),
            Self::Announce => common().and(ask_about_links()),
            Self::Arrived => {
                let calls = common().and(sockets()).and(hold_guest()).and(serve_faults());
                // Threads of the same kind serve the source's further connections.
                let calls = calls.and(urgency()).any(&[c::SYS_accept4, c::SYS_pread64]);
                calls.when(c::SYS_clone, &[THREAD])
            }
            Self::Signer => common().any(&[c::SYS_recvfrom, c::SYS_sendto]),
            Self::Connector => {
                common().and(connect()).any(&[c::SYS_recvfrom, c::SYS_sendto, c::SYS_sendmsg])
            }
            Self::Packets => common().any(&[c::SYS_recvmsg]),
            Self::Journal => common().and(write_segments()),
            Self::Snapshots => common().and(hold_guest()).and(write_segments()).and(urgency()),
            Self::Replay => common()
                .and(start_thread(Self::Announce))
                .and(start_thread(Self::Snapshots))
                .and(hold_guest()),
            Self::Replication => common()
                .and(start_thread(Self::Announce))
                .and(sockets())
                .and(hold_guest())
                // A primary that becomes a standby executes what is fed to it.
                .any(&[c::SYS_eventfd2])
                .and(urgency()),
            Self::Metrics => common().and(sockets()).any(&[c::SYS_accept4]),
            Self::Receive => common()
                .and(start_thread(Self::Vcpu))
                .and(start_thread(Self::Replication))
                .and(sockets())
                .and(make_guest())
                .and(hold_guest())
                .and(watch_memory())
                .and(take_name())
                .and(urgency())
                // A timer limits what is done on a guest's behalf before it runs.
                .any(&[c::SYS_timer_create, c::SYS_timer_settime, c::SYS_timer_delete]),
            Self::Accept => common().and(start_thread(Self::Receive)).any(&[c::SYS_accept4]),
            // The rest serves the end of the process, which gives its name up.
            Self::Main => common().and(start_thread(Self::Control)).any(&[
                c::SYS_accept4,
                c::SYS_flock,
                c::SYS_unlink,
                c::SYS_pread64,
            ]),
        }
    }
}

/// What every thread does: memory, locks, time, its own end, and what the language runtime needs
/// for these.
fn common() -> Calls {
    let own_process = u64::from(std::process::id());
    Calls::default()
        // Memory, never executable. Stacks have guard pages; allocators return memory.
        .any(&[c::SYS_munmap, c::SYS_mremap, c::SYS_madvise, c::SYS_brk])
        .when(c::SYS_mmap, &[masked(2, c::PROT_EXEC as u64, 0)])
        .when(c::SYS_mprotect, &[masked(2, c::PROT_EXEC as u64, 0)])
        // Locks and time. Where the host's clock allows, reading it takes no system call.
        .any(&[c::SYS_futex, c::SYS_sched_yield, c::SYS_restart_syscall])
        .any(&[c::SYS_clock_gettime, c::SYS_gettimeofday, c::SYS_clock_nanosleep, c::SYS_nanosleep])
        // Start and end of a thread, and the end of the process.
        .any(&[c::SYS_rseq, c::SYS_set_robust_list, c::SYS_sigaltstack, c::SYS_sched_getaffinity])
        .any(&[c::SYS_rt_sigprocmask, c::SYS_rt_sigreturn, c::SYS_exit, c::SYS_exit_group])
        .with(c::SYS_prctl, 0, &[c::PR_SET_NAME as u64, c::PR_SET_TIMERSLACK as u64])
        // `enter` itself: a narrower filter, fewer capabilities.
        .with(c::SYS_prctl, 0, &[c::PR_SET_SECCOMP as u64, c::PR_SET_NO_NEW_PRIVS as u64])
        .any(&[c::SYS_seccomp, c::SYS_capget, c::SYS_capset])
        // A kick, and an abort's signal: only to threads of this process.
        .any(&[c::SYS_gettid, c::SYS_getpid])
        .when(c::SYS_tgkill, &[is(0, own_process)])
        .with(c::SYS_rt_sigaction, 0, &[c::SIGABRT as u64])
        // Open descriptors, and messages on standard error.
        .any(&[c::SYS_read, c::SYS_write, c::SYS_readv, c::SYS_writev, c::SYS_close])
        .any(&[c::SYS_lseek, c::SYS_fstat, c::SYS_statx, c::SYS_newfstatat])
        .any(&[c::SYS_poll, c::SYS_ppoll])
        .with(c::SYS_fcntl, 1, &[c::F_DUPFD_CLOEXEC as u64, c::F_GETFD as u64, c::F_GETFL as u64])
        // Seeds of hash tables, names of moves, generations of VMs.
        .any(&[c::SYS_getrandom])
}

/// Allows starting a thread of one kind, never a process. The new thread inherits the filter, so
/// the starter may make all calls that the new thread may make.
fn start_thread(of: Thread) -> Calls {
    of.calls().when(c::SYS_clone, &[THREAD])
}

/// Flags of `clone` that make a thread and nothing else.
const THREAD: Arg = {
    let thread = (c::CLONE_VM | c::CLONE_SIGHAND | c::CLONE_THREAD) as u64;
    let other = c::CLONE_NEWNS
        | c::CLONE_NEWCGROUP
        | c::CLONE_NEWUTS
        | c::CLONE_NEWIPC
        | c::CLONE_NEWUSER
        | c::CLONE_NEWPID
        | c::CLONE_NEWNET
        | c::CLONE_PTRACE;
    masked(0, thread | other as u64, thread)
};

/// Running the guest. Frames pass the TAP by `readv` and `writev`; a driver that starts negotiates
/// its features. Before a move the vCPU's state is read.
fn run_guest() -> Calls {
    let run = [io(0x80), ior::<kvm::kvm_regs>(0x81), ior::<kvm::kvm_sregs>(0x83), TUNSETOFFLOAD];
    ioctls(&run).and(ioctls(&[
        iowr::<kvm::kvm_msrs>(0x88),
        ior::<kvm::kvm_xsave>(0xa4),
        ior::<kvm::kvm_xcrs>(0xa6),
    ]))
}

/// Access to a paused guest and its dirty log: both are captured, applied and copied.
fn hold_guest() -> Calls {
    run_guest().and(ioctls(&[
        iow::<kvm::kvm_dirty_log>(0x42),
        iow::<kvm::kvm_userspace_memory_region>(0x46),
        iow::<kvm::kvm_msrs>(0x89),
        iow::<kvm::kvm_xsave>(0xa5),
        iow::<kvm::kvm_xcrs>(0xa7),
        iowr::<kvm::kvm_clear_dirty_log>(0xc0),
    ]))
}

/// Starting to watch a guest's memory for missing or write-protected pages, and serving those
/// faults.
fn watch_memory() -> Calls {
    // `uffdio_api`, `_register` and `_writeprotect`, by their sizes; the first is the device's.
    let watch = [
        request(UFFD, 0x00, 0, 0),
        request(UFFD, 0x3f, BOTH, 24),
        request(UFFD, 0x00, BOTH, 32),
        request(UFFD, 0x06, BOTH, 24),
    ];
    serve_faults().and(ioctls(&watch)).any(&[c::SYS_userfaultfd, c::SYS_fallocate])
}

/// Filling in pages that a thread waits for, until none is missing.
fn serve_faults() -> Calls {
    // `uffdio_range` twice, `_copy` and `_zeropage`.
    ioctls(&[
        request(UFFD, 0x01, READ, 16),
        request(UFFD, 0x02, READ, 16),
        request(UFFD, 0x03, BOTH, 40),
        request(UFFD, 0x04, BOTH, 32),
    ])
}

/// Saving a guest to a file and loading it. The client passes the files with its request, so the
/// VMM opens none. A state is tried on a separate VM before it replaces a running guest's.
fn copy_guest() -> Calls {
    make_machine().any(&[c::SYS_pwrite64])
}

/// Writing the segments of a journal, in its directory.
fn write_segments() -> Calls {
    Calls::default()
        .any(&[c::SYS_openat, c::SYS_pwrite64, c::SYS_pread64, c::SYS_fallocate, c::SYS_ftruncate])
        .any(&[c::SYS_fdatasync, c::SYS_fsync, c::SYS_rename, c::SYS_unlink])
        .any(&[c::SYS_getdents64, c::SYS_readlink])
}

/// Making a VM from KVM's own descriptor.
fn make_machine() -> Calls {
    let kvm = ioctls(&[
        io(0x00),
        io(0x01),
        iowr::<kvm::kvm_msr_list>(0x02),
        io(0x03),
        io(0x04),
        iowr::<kvm::kvm_cpuid2>(0x05),
        io(0x41),
        ior::<kvm::kvm_sregs>(0x83),
        iow::<kvm::kvm_cpuid2>(0x90),
        iow::<kvm::kvm_enable_cap>(0xa3),
        io(0xa3),
        iow::<kvm::kvm_device_attr>(0xe1),
        io(0xce),
    ]);
    // KVM's statistics are read from a file, at an offset.
    kvm.any(&[c::SYS_memfd_create, c::SYS_ftruncate, c::SYS_eventfd2, c::SYS_pread64])
}

/// Making a VM and its TAP.
fn make_guest() -> Calls {
    let tap = ioctls(&[TUNSETIFF, TUNSETVNETHDRSZ, c::SIOCGIFMTU, c::SIOCGIFINDEX]);
    make_machine().and(tap).and(ask_about_links()).any(&[c::SYS_openat])
}

/// Whether a TAP carries packets. Any socket can query an interface; netlink reports changes.
fn ask_about_links() -> Calls {
    ioctls(&[c::SIOCGIFFLAGS])
        .when(
            c::SYS_socket,
            &[is(0, c::AF_UNIX as u64), masked(1, SOCK_TYPE, c::SOCK_DGRAM as u64)],
        )
        .when(c::SYS_socket, &[is(0, c::AF_NETLINK as u64), is(2, c::NETLINK_ROUTE as u64)])
        .when(c::SYS_setsockopt, &[is(1, c::SOL_NETLINK as u64)])
        .any(&[c::SYS_bind, c::SYS_recvfrom])
}

/// Taking a name in the runtime directory, with its socket, and giving it up; reading the
/// identity's directory, which must belong to this user.
fn take_name() -> Calls {
    Calls::default()
        .when(
            c::SYS_socket,
            &[is(0, c::AF_UNIX as u64), masked(1, SOCK_TYPE, c::SOCK_STREAM as u64)],
        )
        .any(&[c::SYS_openat, c::SYS_geteuid, c::SYS_flock, c::SYS_ftruncate])
        .any(&[c::SYS_unlink, c::SYS_bind, c::SYS_listen])
}

/// Using sockets that exist.
fn sockets() -> Calls {
    let timeouts = [c::SO_SNDTIMEO, c::SO_RCVTIMEO, c::SO_KEEPALIVE];
    let calls = Calls::default()
        .any(&[c::SYS_recvfrom, c::SYS_sendto, c::SYS_recvmsg, c::SYS_sendmsg, c::SYS_shutdown])
        .any(&[c::SYS_getsockname, c::SYS_getpeername])
        .when(c::SYS_setsockopt, &[is(1, c::IPPROTO_TCP as u64)])
        .and(ioctls(&[c::FIONBIO]));
    timeouts.iter().fold(calls, |calls, &name| {
        let option = [is(1, c::SOL_SOCKET as u64), is(2, name as u64)];
        calls.when(c::SYS_setsockopt, &option)
    })
}

/// Connecting to a move's destination.
fn connect() -> Calls {
    let stream = masked(1, SOCK_TYPE, c::SOCK_STREAM as u64);
    Calls::default()
        .when(c::SYS_socket, &[is(0, c::AF_INET as u64), stream])
        .when(c::SYS_socket, &[is(0, c::AF_INET6 as u64), stream])
        .any(&[c::SYS_connect])
        .when(c::SYS_getsockopt, &[is(1, c::SOL_SOCKET as u64), is(2, c::SO_ERROR as u64)])
}

/// Real-time priority during a switch, never inherited; long time slices for copying threads.
fn urgency() -> Calls {
    let reset = c::SCHED_RESET_ON_FORK as u64;
    Calls::default()
        .any(&[c::SYS_sched_getscheduler, c::SYS_sched_getparam])
        // A filter cannot inspect the structure. It is limited to the calling thread and by
        // `sched_setattr`'s own limits.
        .when(c::SYS_sched_setattr, &[is(0, 0), is(2, 0)])
        .when(c::SYS_sched_setscheduler, &[masked(1, reset, reset)])
}

const SOCK_TYPE: u64 = 0xf;
/// Kind of the ioctls of userfaultfd.
const UFFD: u64 = 0xaa;

const TUNSETIFF: u64 = 0x4004_54ca;
const TUNSETOFFLOAD: u64 = 0x4004_54d0;
const TUNSETVNETHDRSZ: u64 = 0x4004_54d8;

fn ioctls(requests: &[u64]) -> Calls {
    Calls::default().with(c::SYS_ioctl, 1, requests)
}

/// Directions of an ioctl's argument, as seen by the caller.
const WRITE: u64 = 1;
const READ: u64 = 2;
const BOTH: u64 = WRITE | READ;

/// An ioctl, from its kind, number, direction and the size of its argument.
const fn request(kind: u64, nr: u64, direction: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | kind << 8 | nr
}

/// KVM's ioctl number `nr`, without an argument in memory.
const fn io(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, 0, 0)
}

/// An ioctl of KVM's that writes a `T`.
const fn ior<T>(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, READ, size_of::<T>())
}

/// An ioctl of KVM's that reads a `T`.
const fn iow<T>(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, WRITE, size_of::<T>())
}

/// An ioctl of KVM's that does both.
const fn iowr<T>(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, BOTH, size_of::<T>())
}
