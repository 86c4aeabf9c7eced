//! [`Mode::Trap`](super::Mode::Trap): prints which call it was before the process dies of it.

use super::Error;
use std::{cell::Cell, fmt::Write, io, mem::MaybeUninit};
use syscalls::Sysno;

thread_local! {
    static NAME: Cell<&'static str> = const { Cell::new("?") };
}

/// The calling thread's name in the message.
pub(super) fn name_thread(name: &'static str) {
    NAME.set(name);
}

/// Handles SIGSYS, once: the handler prints, and lets the signal kill.
pub(super) fn install() -> Result<(), Error> {
    // SAFETY: plain data, for which zero is valid.
    let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    action.sa_sigaction = handle as *const () as usize;
    // The kernel restores the default action before the handler runs, and does not block the signal
    // meanwhile, so a second SIGSYS kills the process.
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND | libc::SA_NODEFER;
    // SAFETY: the handler is async-signal-safe.
    match unsafe { libc::sigaction(libc::SIGSYS, &raw const action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(Error::Call { doing: "handle SIGSYS", source: io::Error::last_os_error() }),
    }
}

/// The kernel's description of a SIGSYS that a filter raised; `siginfo_t` as Linux has it on
/// x86-64.
#[repr(C)]
struct Sigsys {
    signo: i32,
    errno: i32,
    code: i32,
    _pad: i32,
    address: u64,
    call: i32,
    arch: u32,
}

/// Only async-signal-safe operations: a buffer on the stack, `write`, `tgkill`.
extern "C" fn handle(_: libc::c_int, info: *const Sigsys, context: *const libc::ucontext_t) {
    // SAFETY: the kernel passes both pointers, and fills them for a filter's SIGSYS.
    let (call, registers) = unsafe { ((*info).call, &(*context).uc_mcontext.gregs) };
    let arg = |register: i32| registers[register as usize];
    let mut text = Text { bytes: [0; 256], len: 0 };
    let name = Sysno::new(call as usize).map_or("?", |call| call.name());
    // What does not fit is cut off.
    let _ = writeln!(
        text,
        "vmm-lite: thread {} made the system call {name} ({call}; {:#x}, {:#x}, {:#x}), which its \
         filter does not have; see docs/confinement.md",
        NAME.get(),
        arg(libc::REG_RDI),
        arg(libc::REG_RSI),
        arg(libc::REG_RDX),
    );
    // SAFETY: a valid buffer; and a signal to the calling thread whose action is the default again:
    // it ends the process.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.bytes.as_ptr().cast(), text.len);
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSYS);
    }
}

struct Text {
    bytes: [u8; 256],
    len: usize,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let room = &mut self.bytes[self.len..];
        let n = s.len().min(room.len());
        room[..n].copy_from_slice(&s.as_bytes()[..n]);
        self.len += n;
        Ok(())
    }
}
