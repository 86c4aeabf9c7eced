//! The system calls of each thread.
//!
//! Written by what a thread does, in groups that say why they are there. What no thread may do has
//! no entry: execute a program, trace another process, mount, load a module or a BPF program,
//! become another user, map memory executable, start a process.

use super::calls::{Arg, Calls, is, masked};
use kvm_bindings as kvm;
use libc as c;

/// The kinds of thread that a process with a VM has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Thread {
    /// Waits for signals, clients and the end, and starts the threads that serve clients.
    Main,
    /// Runs the guest and serves its devices.
    Vcpu,
    /// Hands standard input to the guest.
    Stdin,
    /// Serves a client of the control socket; `migrate` too.
    Control,
    /// Hands a client's console input to the guest.
    ConsoleIn,
    /// Takes connections of hosts that want to move a VM here.
    Accept,
    /// Serves one of them, makes the VM, and takes it in.
    Receive,
    /// Serves the metrics.
    Metrics,
    /// Brings a guest its memory from a snapshot while it runs.
    Loader,
    /// Tells the network that a guest is here once it can be told.
    Announce,
    /// Serves the source of a VM that has arrived: memory that follows, and what it asks.
    Arrived,
    /// Signs with the host's key, in a process of its own that runs no guest.
    Signer,
    /// Notices threads that do not answer.
    Watchdog,
    /// Connects to where a VM moves whose own process has no network, in a process of its own that
    /// runs no guest.
    Connector,
}

impl Thread {
    /// All kinds.
    pub const ALL: [Self; 14] = [
        Self::Main,
        Self::Vcpu,
        Self::Stdin,
        Self::Control,
        Self::ConsoleIn,
        Self::Accept,
        Self::Receive,
        Self::Metrics,
        Self::Loader,
        Self::Announce,
        Self::Arrived,
        Self::Signer,
        Self::Watchdog,
        Self::Connector,
    ];

    /// The thread's name, as the host shows it (but for the main thread, which has the program's).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Vcpu => "vcpu",
            Self::Stdin => "stdin",
            Self::Control => "control",
            Self::ConsoleIn => "console-in",
            Self::Accept => "accept",
            Self::Receive => "receive",
            Self::Metrics => "metrics",
            Self::Loader => "loader",
            Self::Announce => "announce",
            Self::Arrived => "arrived",
            Self::Signer => "vmm-lite-signer",
            Self::Watchdog => "watchdog",
            Self::Connector => "vmm-connector",
        }
    }

    pub(super) fn calls(self) -> Calls {
        match self {
            Self::Vcpu => common().and(run_guest()),
            // The watchdog reads the CPU time of other threads of this process, by a clock.
            Self::Stdin | Self::Watchdog => common(),
            Self::ConsoleIn => common().any(&[c::SYS_recvfrom]),
            Self::Control => common()
                .and(start_thread(Self::ConsoleIn))
                .and(sockets())
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
                // Their like serve the connections on which a source asks.
                let calls = calls.and(urgency()).any(&[c::SYS_accept4, c::SYS_pread64]);
                calls.when(c::SYS_clone, &[THREAD])
            }
            Self::Signer => common().any(&[c::SYS_recvfrom, c::SYS_sendto]),
            Self::Connector => {
                common().and(connect()).any(&[c::SYS_recvfrom, c::SYS_sendto, c::SYS_sendmsg])
            }
            Self::Metrics => common().and(sockets()).any(&[c::SYS_accept4]),
            Self::Receive => common()
                .and(start_thread(Self::Vcpu))
                .and(sockets())
                .and(make_guest())
                .and(hold_guest())
                .and(watch_memory())
                .and(take_name())
                .and(urgency())
                // What is done on a guest's behalf before it runs is cut short.
                .any(&[c::SYS_timer_create, c::SYS_timer_settime, c::SYS_timer_delete]),
            Self::Accept => common().and(start_thread(Self::Receive)).any(&[c::SYS_accept4]),
            // The rest is the end of the process: the name is given up.
            Self::Main => common().and(start_thread(Self::Control)).any(&[
                c::SYS_accept4,
                c::SYS_flock,
                c::SYS_unlink,
                c::SYS_pread64,
            ]),
        }
    }
}

/// What every thread does: memory, locks, time, its own end, and what the language's own runtime
/// needs for these.
fn common() -> Calls {
    let own_process = u64::from(std::process::id());
    Calls::default()
        // Memory, never executable. Stacks have guard pages; allocators give memory back.
        .any(&[c::SYS_munmap, c::SYS_mremap, c::SYS_madvise, c::SYS_brk])
        .when(c::SYS_mmap, &[masked(2, c::PROT_EXEC as u64, 0)])
        .when(c::SYS_mprotect, &[masked(2, c::PROT_EXEC as u64, 0)])
        // Locks and time. The clock is read without a call where the host's is good enough for
        // that.
        .any(&[c::SYS_futex, c::SYS_sched_yield, c::SYS_restart_syscall])
        .any(&[c::SYS_clock_gettime, c::SYS_gettimeofday, c::SYS_clock_nanosleep, c::SYS_nanosleep])
        // Beginning and end of a thread, and the end of the process.
        .any(&[c::SYS_rseq, c::SYS_set_robust_list, c::SYS_sigaltstack, c::SYS_sched_getaffinity])
        .any(&[c::SYS_rt_sigprocmask, c::SYS_rt_sigreturn, c::SYS_exit, c::SYS_exit_group])
        .with(c::SYS_prctl, 0, &[c::PR_SET_NAME as u64, c::PR_SET_TIMERSLACK as u64])
        // `enter` itself: a narrower filter, fewer capabilities.
        .with(c::SYS_prctl, 0, &[c::PR_SET_SECCOMP as u64, c::PR_SET_NO_NEW_PRIVS as u64])
        .any(&[c::SYS_seccomp, c::SYS_capget, c::SYS_capset])
        // A kick, and the signal of an abort: to threads of this process only.
        .any(&[c::SYS_gettid, c::SYS_getpid])
        .when(c::SYS_tgkill, &[is(0, own_process)])
        .with(c::SYS_rt_sigaction, 0, &[c::SIGABRT as u64])
        // What is open, and messages for people on standard error.
        .any(&[c::SYS_read, c::SYS_write, c::SYS_readv, c::SYS_writev, c::SYS_close])
        .any(&[c::SYS_lseek, c::SYS_fstat, c::SYS_statx, c::SYS_newfstatat])
        .any(&[c::SYS_poll, c::SYS_ppoll])
        .with(c::SYS_fcntl, 1, &[c::F_DUPFD_CLOEXEC as u64, c::F_GETFD as u64, c::F_GETFL as u64])
        // Seeds of hash tables, names of moves, generations of guests.
        .any(&[c::SYS_getrandom])
}

/// Starting a thread of one kind, never a process, and so all that such a thread may do: it
/// inherits the filter of the one that started it.
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

/// Running the guest. Frames go through the TAP by `readv` and `writev`, and a driver that starts
/// says what it can take. Before a move the vCPU's state is read.
fn run_guest() -> Calls {
    let run = [io(0x80), ior::<kvm::kvm_regs>(0x81), ior::<kvm::kvm_sregs>(0x83), TUNSETOFFLOAD];
    ioctls(&run).and(ioctls(&[
        iowr::<kvm::kvm_msrs>(0x88),
        ior::<kvm::kvm_xsave>(0xa4),
        ior::<kvm::kvm_xcrs>(0xa6),
    ]))
}

/// What is done with a guest that stands still, and with the log of its pages: captured, applied,
/// copied.
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

/// Beginning to watch a guest's memory for pages that are not there yet, or not to be written to
/// unnoticed; and serving that.
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

/// Putting pages where somebody waits for them, until none is missing.
fn serve_faults() -> Calls {
    // `uffdio_range` twice, `_copy` and `_zeropage`.
    ioctls(&[
        request(UFFD, 0x01, READ, 16),
        request(UFFD, 0x02, READ, 16),
        request(UFFD, 0x03, BOTH, 40),
        request(UFFD, 0x04, BOTH, 32),
    ])
}

/// A guest into a file and out of it. The files come with the request, so that none is opened. A
/// state is tried on a machine of its own before it takes a running guest's place.
fn copy_guest() -> Calls {
    make_machine().any(&[c::SYS_pwrite64])
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
    // KVM's statistics are read at a place in a file of theirs.
    kvm.any(&[c::SYS_memfd_create, c::SYS_ftruncate, c::SYS_eventfd2, c::SYS_pread64])
}

/// Making a VM and its TAP.
fn make_guest() -> Calls {
    let tap = ioctls(&[TUNSETIFF, TUNSETVNETHDRSZ, c::SIOCGIFMTU, c::SIOCGIFINDEX]);
    make_machine().and(tap).and(ask_about_links()).any(&[c::SYS_openat])
}

/// Whether a TAP carries packets. Any socket does to ask about an interface; changes of it are told
/// by netlink.
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

/// Taking a name in the runtime directory, with its socket, and giving it up; and reading the
/// identity's directory, which must be this user's.
fn take_name() -> Calls {
    Calls::default()
        .when(
            c::SYS_socket,
            &[is(0, c::AF_UNIX as u64), masked(1, SOCK_TYPE, c::SOCK_STREAM as u64)],
        )
        .any(&[c::SYS_openat, c::SYS_geteuid, c::SYS_flock, c::SYS_ftruncate])
        .any(&[c::SYS_unlink, c::SYS_bind, c::SYS_listen])
}

/// Talking over sockets that are there.
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

/// Connecting to the host that a VM moves to.
fn connect() -> Calls {
    let stream = masked(1, SOCK_TYPE, c::SOCK_STREAM as u64);
    Calls::default()
        .when(c::SYS_socket, &[is(0, c::AF_INET as u64), stream])
        .when(c::SYS_socket, &[is(0, c::AF_INET6 as u64), stream])
        .any(&[c::SYS_connect])
        .when(c::SYS_getsockopt, &[is(1, c::SOL_SOCKET as u64), is(2, c::SO_ERROR as u64)])
}

/// Real-time priority for the time of a switch, never inherited; long time slices for who copies.
fn urgency() -> Calls {
    let reset = c::SCHED_RESET_ON_FORK as u64;
    Calls::default()
        .any(&[c::SYS_sched_getscheduler, c::SYS_sched_getparam])
        // What it points to cannot be looked at; so for the calling thread only, and see
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

/// Directions of an ioctl's argument, as the caller sees them.
const WRITE: u64 = 1;
const READ: u64 = 2;
const BOTH: u64 = WRITE | READ;

/// An ioctl: its kind, number, direction, and its argument's size.
const fn request(kind: u64, nr: u64, direction: u64, size: usize) -> u64 {
    direction << 30 | (size as u64) << 16 | kind << 8 | nr
}

/// KVM's ioctl number `nr`, without an argument in memory.
const fn io(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, 0, 0)
}

/// One that KVM writes a `T` for.
const fn ior<T>(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, READ, size_of::<T>())
}

/// One that KVM reads a `T` for.
const fn iow<T>(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, WRITE, size_of::<T>())
}

/// Both.
const fn iowr<T>(nr: u64) -> u64 {
    request(kvm::KVMIO as u64, nr, BOTH, size_of::<T>())
}
