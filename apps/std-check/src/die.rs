//! Ways to end the process, for tests of fault reports and exit codes: `std-check --die WAY`.

use std::hint::black_box;
use std::thread;

/// A way to die: name, description, function.
type Way = (&'static str, &'static str, fn() -> !);

/// All ways, for `--help` and for tests that try each.
pub const WAYS: &[Way] = &[
    ("panic", "panics in the main thread", || panic!("asked to panic")),
    (
        "panic-thread",
        "panics in another thread, which ends the program only where panics abort",
        panic_thread,
    ),
    ("abort", "calls std::process::abort", || std::process::abort()),
    ("overflow", "recurses until the main stack ends", overflow),
    ("overflow-thread", "recurses until another thread's stack ends", overflow_thread),
    ("null", "reads through a null pointer", || touch(0x10)),
    ("wild", "reads an address where nothing is", || touch(0x6000_dead_0000)),
    ("write-text", "writes to the program's code", write_text),
    ("exec-heap", "jumps into the heap", exec_heap),
    ("illegal", "executes ud2", illegal),
    ("oom", "asks for more memory than any machine has", oom),
    (
        "fill",
        "allocates until there is no memory left; on an ordinary system set a limit first",
        fill,
    ),
    (
        "deadlock",
        "waits for a message that nobody can send; on an ordinary system, for ever",
        deadlock,
    ),
];

/// Dies in the way with this name, or reports that there is none. `main` handles `exit=N` and
/// `return=N`.
pub fn die(name: &str) -> Result<(), String> {
    match WAYS.iter().find(|way| way.0 == name) {
        Some(way) => (way.2)(),
        None => {
            let names: Vec<_> = WAYS.iter().map(|way| way.0).collect();
            Err(format!(
                "no way to die is called `{name}`; there are: {}, exit=N, return=N",
                names.join(", ")
            ))
        }
    }
}

fn survived(what: &str) -> ! {
    println!("survived {what}");
    std::process::exit(0)
}

fn panic_thread() -> ! {
    let _panicked = thread::spawn(|| panic!("asked to panic in a thread")).join();
    survived("a panic in another thread")
}

fn overflow() -> ! {
    black_box(recurse(black_box(1)));
    survived("a stack overflow")
}

#[allow(unconditional_recursion)]
fn recurse(n: u64) -> u64 {
    let frame = black_box([n; 64]);
    recurse(frame[1] + 1) + frame[2]
}

fn overflow_thread() -> ! {
    let _ended = thread::Builder::new()
        .name("deep".into())
        .spawn(|| overflow())
        .map(thread::JoinHandle::join);
    survived("a stack overflow in a thread")
}

fn touch(address: usize) -> ! {
    // SAFETY: there is none: the access is meant to fault, and no value is used.
    black_box(unsafe {
        std::ptr::with_exposed_provenance::<u8>(black_box(address)).read_volatile()
    });
    survived("a wild read")
}

fn write_text() -> ! {
    let code = std::ptr::with_exposed_provenance_mut::<u8>(survived as *const () as usize);
    // SAFETY: there is none: the write is meant to fault; if it does not, it writes the same byte
    // back.
    unsafe { code.write_volatile(code.read_volatile()) };
    survived("a write to code")
}

fn exec_heap() -> ! {
    // A `ret`, so that this returns where data can be executed.
    let data: Box<[u8]> = black_box(Box::new([0xC3; 64]));
    // SAFETY: there is none: the call is meant to fault; if it does not, `ret` returns at once.
    unsafe { std::mem::transmute::<*const u8, extern "C" fn()>(data.as_ptr())() };
    survived("running data")
}

fn illegal() -> ! {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `ud2` touches no memory; it faults.
    unsafe {
        std::arch::asm!("ud2", options(nomem, nostack))
    };
    survived("an illegal instruction")
}

fn oom() -> ! {
    let much: Vec<u8> = black_box(Vec::with_capacity(isize::MAX as usize - 4096));
    survived(if much.is_empty() { "an impossible allocation" } else { "" })
}

fn fill() -> ! {
    let mut blocks: Vec<Box<[u8]>> = Vec::new();
    loop {
        blocks.push(vec![0xA5; 64 * 1024].into_boxed_slice());
        black_box(&blocks);
    }
}

fn deadlock() -> ! {
    let (_sender, receiver) = std::sync::mpsc::channel::<()>();
    let _nothing = receiver.recv();
    survived("a deadlock")
}
