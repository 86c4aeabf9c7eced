//! The control page.
//!
//! All fields are atomics, accessed by plain loads and stores: by a guest with one vCPU, and by a
//! VMM that mostly looks while that vCPU is stopped. Where a field may change while the guest runs,
//! its documentation says so. The layout is `repr(C)`, little endian, and part of
//! [`INTERFACE_VERSION`](crate::INTERFACE_VERSION).

use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64};

/// First eight bytes of the control page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"vmmlite\0");

/// Why the guest runs (again). In [`ControlPage::resume_reason`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ResumeReason {
    /// First start of the image.
    Boot = 0,
    /// The same VM on the same host: a pause ended, or a move that did not happen.
    Resumed = 1,
    /// The same VM on another host.
    Migrated = 2,
    /// A copy started from a snapshot file; the generation changed.
    Restored = 3,
    /// A clone of a VM that continues to run; the generation changed.
    Forked = 4,
    /// The standby took over from a failed primary.
    TakenOver = 5,
    /// The same VM, reverted to a snapshot; the generation changed.
    Reverted = 6,
}

impl ResumeReason {
    /// The reason with this number, if it exists.
    #[must_use]
    pub const fn from_u32(n: u32) -> Option<Self> {
        Some(match n {
            0 => Self::Boot,
            1 => Self::Resumed,
            2 => Self::Migrated,
            3 => Self::Restored,
            4 => Self::Forked,
            5 => Self::TakenOver,
            6 => Self::Reverted,
            _ => return None,
        })
    }
}

/// A single-producer single-consumer ring of bytes. `head` counts all bytes produced, `tail` all
/// bytes consumed, both wrapping; the data is `data[counter & (size - 1)]`. Addresses and sizes of
/// the data are constants of [`crate::layout`], not fields, so that neither side can redirect the
/// other.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ByteRing {
    /// Bytes written by the producer in total.
    pub head: AtomicU32,
    /// Bytes read by the consumer in total.
    pub tail: AtomicU32,
}

/// The paravirtual clock, written by the VMM while the vCPU is stopped:
/// `monotonic_ns = mono_base_ns + ((tsc - tsc_base) * mult >> 32)`, where the product has 128 bits,
/// and `wall_ns = monotonic_ns + wall_offset_ns`. `tsc < tsc_base` counts as `tsc_base` (rule R6).
#[repr(C)]
#[derive(Debug, Default)]
pub struct PvClock {
    /// TSC value at which the guest's monotonic clock was `mono_base_ns`.
    pub tsc_base: AtomicU64,
    /// Guest monotonic time at `tsc_base`, in nanoseconds since the guest's first boot.
    pub mono_base_ns: AtomicU64,
    /// Nanoseconds per TSC tick, as a fixed-point number with 32 fractional bits.
    pub mult: AtomicU64,
    /// Unix time minus monotonic time, in nanoseconds.
    pub wall_offset_ns: AtomicU64,
    /// TSC ticks per second, in hertz.
    pub tsc_hz: AtomicU64,
}

/// The guest's state when it failed. Written before
/// [`Doorbell::FAULT`](crate::doorbell::Doorbell::FAULT).
#[repr(C)]
#[derive(Debug, Default)]
pub struct FaultReport {
    /// A [`FaultKind`] number.
    pub kind: AtomicU32,
    /// Number of the thread that failed; the main thread is 0.
    pub thread: AtomicU32,
    /// x86 exception vector, error code.
    pub vector: AtomicU32,
    /// Error code of the exception.
    pub error_code: AtomicU32,
    /// Faulting address (CR2) for page faults, else 0.
    pub address: AtomicU64,
    /// Instruction pointer.
    pub rip: AtomicU64,
    /// Stack pointer.
    pub rsp: AtomicU64,
    /// How many entries of `backtrace` are filled.
    pub backtrace_len: AtomicU32,
    /// Padding.
    pub _pad: AtomicU32,
    /// Return addresses, innermost first; candidates found by scanning the stack where there is no
    /// frame pointer.
    pub backtrace: [AtomicU64; 32],
}

/// Kinds of guest failures, and the exit code of `vmm-lite run` for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum FaultKind {
    /// Access to an address that is not mapped, or not for this kind of access.
    WildAccess = 1,
    /// The guard page under a stack was touched.
    StackOverflow = 2,
    /// An instruction the CPU does not have or allow at CPL 3.
    IllegalInstruction = 3,
    /// Another exception; see the vector.
    Exception = 4,
    /// The program called `abort` (also after a panic in a panic).
    Abort = 5,
    /// The kernel found its own state inconsistent.
    Kernel = 6,
    /// Every thread waits and nothing could wake one.
    Deadlock = 7,
}

impl FaultKind {
    /// The kind with this number, if it exists.
    #[must_use]
    pub const fn from_u32(n: u32) -> Option<Self> {
        Some(match n {
            1 => Self::WildAccess,
            2 => Self::StackOverflow,
            3 => Self::IllegalInstruction,
            4 => Self::Exception,
            5 => Self::Abort,
            6 => Self::Kernel,
            7 => Self::Deadlock,
            _ => return None,
        })
    }

    /// Exit code of the process, by the shell's convention of 128 + signal: SEGV 139, ILL 132, ABRT
    /// 134, the rest 134 too.
    #[must_use]
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::WildAccess | Self::StackOverflow => 139,
            Self::IllegalInstruction => 132,
            Self::Exception | Self::Abort | Self::Kernel | Self::Deadlock => 134,
        }
    }
}

/// The page itself.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct ControlPage {
    /// [`MAGIC`]. Written by the VMM.
    pub magic: AtomicU64,
    /// [`INTERFACE_VERSION`](crate::INTERFACE_VERSION). Written by the VMM.
    pub version: AtomicU32,
    /// Only padding: address width etc. are the CPU's.
    pub _pad0: AtomicU32,

    // VMM to guest.
    /// A number other than `quiesce_answer` asks the guest to quiesce. May change while the guest
    /// runs; the guest checks it at every kernel entry.
    pub quiesce_request: AtomicU32,
    /// Why the guest runs, a [`ResumeReason`].
    pub resume_reason: AtomicU32,
    /// Counts resumes: a guest that sees it change was paused, quiescent or not. Changes only while
    /// the vCPU is stopped.
    pub resume_count: AtomicU64,
    /// How far the guest's monotonic clock advanced while the guest did not run, in ns, at the last
    /// resume.
    pub away_ns: AtomicU64,
    /// TSC value by which the guest should have answered `quiesce_request`; hooks that take longer
    /// are cut short.
    pub quiesce_deadline_tsc: AtomicU64,
    /// Generation id: two 64-bit words, new when a VM is restored or forked so that clones differ.
    pub generation: [AtomicU64; 2],
    /// Fresh random bytes from the host at boot and whenever the generation changes.
    pub entropy: [AtomicU64; 8],
    /// The paravirtual clock.
    pub clock: PvClock,
    /// Guest-physical address of the virtio-mmio network device, or 0.
    pub net_mmio: AtomicU64,
    /// Size of RAM in bytes, from guest-physical 0.
    pub memory_size: AtomicU64,

    // Guest to VMM.
    /// The last `quiesce_request` that the guest answered. Written before `Doorbell::QUIESCED`.
    pub quiesce_answer: AtomicU32,
    /// Exit code, written before `Doorbell::EXIT`.
    pub exit_code: AtomicI32,
    /// Monotonic time (guest clock, ns) at which `Doorbell::WAIT` returns at the latest;
    /// `u64::MAX`: never.
    pub wake_deadline_ns: AtomicU64,
    /// Guest-physical address of the bitmap of page hints, page aligned, or 0 while there is none.
    /// One bit for each page of RAM, bit n%8 of byte n/8 for page n. A set bit states that the
    /// page's content does not matter **at this instant**: the guest clears it before it next reads
    /// or relies on the page, and in particular clears it before use after any resume. A page sent
    /// without its content has any content at the destination.
    pub page_hints: AtomicU64,
    /// Length of the bitmap, in bytes.
    pub page_hints_len: AtomicU64,
    /// TSC read by the guest just before its last `Doorbell::QUIESCED` …
    pub quiesced_tsc: AtomicU64,
    /// … and just after that doorbell returned: the blackout that the guest saw.
    pub resumed_tsc: AtomicU64,
    /// Time spent in the program's quiesce hooks at the last quiesce, ns.
    pub hooks_ns: AtomicU64,
    /// Counters for `vmm-lite stats`: threads alive, heap bytes in use, heap bytes free, TCP and
    /// UDP sockets open.
    pub stats: GuestStats,

    /// Console output: guest produces, VMM consumes.
    pub console_out: ByteRing,
    /// Console input: VMM produces, guest consumes. `head` may change while the guest runs.
    pub console_in: ByteRing,
    /// Nonzero when the console input has ended (EOF after what is in the ring).
    pub console_in_eof: AtomicU32,
    /// Padding.
    pub _pad1: AtomicU32,

    /// Filled by a guest that fails.
    pub fault: FaultReport,

    /// The guest's network addresses from the last resume on. Written by the VMM.
    pub address: NetAddress,

    /// A number other than `reclaim_answer` asks the guest to return memory that it does not use:
    /// to reserve it and mark it in [`page_hints`](Self::page_hints), until it needs it. Written by
    /// the VMM; may change while the guest runs.
    pub reclaim_request: AtomicU32,
    /// The last `reclaim_request` that the guest answered. Written by the guest before
    /// [`Doorbell::RECLAIMED`](crate::doorbell::Doorbell::RECLAIMED).
    pub reclaim_answer: AtomicU32,
    /// 1 while the program has no quiesce hooks: then a quiesce would wait for nothing, and a guest
    /// that is to be moved need not be asked. Written by the guest.
    pub no_quiesce_hooks: AtomicU32,
    /// Padding.
    pub _pad2: AtomicU32,
    /// Address of a routine of the guest's that reads a byte of each page of up to five runs, and
    /// rings an empty doorbell: addresses in `rdi`, `r8`, `r10`, `r12`, `r14`, counts of pages in
    /// `rsi`, `r9`, `r11`, `r13`, `r15`, the port in `dx`, 0 in `eax`. It also uses `rbx`, and no
    /// memory but the pages. 0: there is none. Written by the guest. The VMM runs it at CPL 3 in a
    /// VM whose guest is about to arrive.
    pub touch_pages: AtomicU64,
    /// The guest's routines that take [samples](crate::samples): for each the address where it
    /// begins, and that of the instruction that counts the sample. 0: the guest takes values that
    /// the ring does not have, so it cannot be recorded. Written by the guest.
    ///
    /// A guest that is stopped from the first of two addresses up to and including the second may
    /// be continued at the first: nothing but scratch registers has changed.
    pub sample_routines: [[AtomicU64; 2]; 2],
}

/// A guest's network addresses, for one that was restored or forked with others. Changes only while
/// the vCPU is stopped; a guest that finds [`sequence`](Self::sequence) changed applies the given
/// addresses, and closes its connections if its address differs.
#[repr(C)]
#[derive(Debug, Default)]
pub struct NetAddress {
    /// Counts changes.
    pub sequence: AtomicU32,
    /// Which addresses are given, of [`Self::IP`], [`Self::GATEWAY`], [`Self::DNS`]; the others
    /// stay unchanged. The Ethernet address is always given.
    pub given: AtomicU32,
    /// Ethernet address of the network device: six bytes, the first in the lowest.
    pub mac: AtomicU64,
    /// IPv4 address, the first byte in the highest.
    pub ip: AtomicU32,
    /// Length of its network's prefix.
    pub prefix: AtomicU32,
    /// Address of the router.
    pub gateway: AtomicU32,
    /// How many entries of `dns` are filled.
    pub dns_len: AtomicU32,
    /// Addresses of name servers.
    pub dns: [AtomicU32; 4],
}

impl NetAddress {
    /// Bit of `given`: address and prefix.
    pub const IP: u32 = 1;
    /// Bit of `given`: the router.
    pub const GATEWAY: u32 = 2;
    /// Bit of `given`: name servers.
    pub const DNS: u32 = 4;
}

/// The guest's own statement; see [`ControlPage::stats`].
#[repr(C)]
#[derive(Debug, Default)]
pub struct GuestStats {
    /// Threads that have not ended.
    pub threads: AtomicU64,
    /// Bytes the program has allocated.
    pub heap_used: AtomicU64,
    /// Bytes it could still allocate.
    pub heap_free: AtomicU64,
    /// Open sockets.
    pub sockets: AtomicU64,
}

const _: () = assert!(size_of::<ControlPage>() == 4096);
