//! The work between the stop of a guest and the commit does not grow with its memory.
//!
//! The test drives a guest that writes to the same few pages through a move up to the commit, at
//! two sizes of memory. It counts the work of the source's thread in the blackout rather than
//! timing it: bytes that it allocates, and words of bitmaps that it reads. Making or cloning a set
//! of all pages there, or reading a whole bitmap, fails the test, on a busy host too.
#![cfg(debug_assertions)]

use migrate::{
    ReceiverId,
    offer::Offer,
    source::{Action, Event, Mode, Sent, Settings, Source, Stopped},
    wire::{Accepted, Message},
};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use testkit::{
    control, guest,
    guest::{Elf, kvm, start},
};
use vmm::{
    boot::{Image, Parameters},
    capture::changes::Changes,
    devices::console::Console,
    memory::{PAGE, words_looked_at},
    vm::{Config, Vm},
};
use vmm_lite_interface::doorbell::{Doorbell, PORT};

const COUNTER: u64 = 0x18_0000;
const OTHER: u64 = 0x19_0000;
/// Address of the guest's page-hint bitmap.
const HINTS: u64 = 0x40_0000;
const TIMEOUT: Duration = Duration::from_secs(20);

guest!(
    writes,
    "2: inc dword ptr [{counter}]",
    "inc dword ptr [{other}]",
    // It has nothing to return, and says so when it is asked to.
    "mov eax, [{request}]",
    "cmp eax, [{answer}]",
    "je 2b",
    "mov [{answer}], eax",
    "mov edx, {port}",
    "mov eax, {reclaimed}",
    "out dx, eax",
    "jmp 2b",
    counter = const COUNTER as u32,
    other = const OTHER as u32,
    request = const control!(reclaim_request),
    answer = const control!(reclaim_answer),
    reclaimed = const Doorbell::RECLAIMED.0,
    port = const PORT as u32,
);

/// The system's allocator, with a count of the bytes that each thread has allocated.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that is ending does not count any more.
        let _ = ALLOCATED.try_with(|bytes| bytes.set(bytes.get() + layout.size() as u64));
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The work of the source's thread in a blackout.
#[derive(Clone, Copy, Debug)]
struct Work {
    allocated: u64,
    words: u64,
    pages: usize,
}

fn done() -> (u64, u64) {
    (ALLOCATED.with(Cell::get), words_looked_at())
}

fn vm(memory: u64) -> Vm {
    let file = Elf::of(writes()).file();
    let image = Image::open(file.path()).unwrap();
    let parameters = Parameters { name: "test".into(), ..Default::default() };
    Vm::boot(&Config { memory, nets: vec![], parameters }, &image, Console::new(None)).unwrap()
}

/// Waits until the guest has written to both of its pages once more.
fn written_again(vm: &Vm) {
    let word = || {
        let mut bytes = [0; 4];
        vm.ram().read(OTHER, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    };
    let (before, deadline) = (word(), Instant::now() + TIMEOUT);
    while word().wrapping_sub(before) < 2 {
        assert!(Instant::now() < deadline, "the guest does not run");
        std::thread::yield_now();
    }
}

/// Moves a guest with `memory` bytes up to the commit.
fn blackout(memory: u64, mode: Mode) -> Work {
    let vm = vm(memory);
    let pages = vm.ram().pages();
    // The guest hints all that it does not use, as its kernel would.
    let mut hints = vec![0; pages / 8];
    hints[0x80_0000 / PAGE / 8..].fill(0xff);
    vm.unstarted_memory().unwrap().write(HINTS, &hints).unwrap();
    let control = vm.ram().control_page();
    control.page_hints.store(HINTS, SeqCst);
    control.page_hints_len.store(hints.len() as u64, SeqCst);
    control.no_quiesce_hooks.store(1, SeqCst);
    start(&vm);
    written_again(&vm);

    let offer = Offer {
        receiver: ReceiverId::default(),
        name: "test".into(),
        memory_size: memory,
        interface_version: 1,
        network: false,
        identity: Vec::new(),
    };
    // The same time on every host, however slow it is now.
    let now = Duration::from_millis(1);
    let settings = Settings { mode, max_blackout: TIMEOUT, ..Settings::default() };
    let (mut source, _) = Source::begin([1; 16], offer, settings, now);
    let mut actions = source.handle(Event::Message(Message::Welcome([1; 16], [2; 16])), now);
    let mut changes = None;
    let mut paused = None;
    let mut reclaimed = None;
    let mut began = (0, 0);
    let mut last = 0;
    loop {
        let mut events = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Send(Message::Offer(_)) => {
                    vm.request_reclaim();
                    reclaimed = vm.wait_reclaimed(TIMEOUT);
                    events.push(Event::Reclaimed(vm.page_hints()));
                    let accepted = Accepted { follow: true, apply_ns: 1000 };
                    events.push(Event::Message(Message::Accept(accepted)));
                }
                Action::StartLog => {
                    let complete = vm.ram().complete().unwrap();
                    changes = Some(Changes::start(&vm, complete).unwrap());
                }
                Action::SendPages { round, .. } => {
                    if round == 0 {
                        let changes = changes.as_mut().unwrap();
                        changes.touched().unwrap();
                        while changes.next_piece().unwrap().is_some() {}
                    }
                    if let Some(reclaimed) = reclaimed.filter(|_| round == 0) {
                        events.push(Event::LeftOut(vm.lost_content(reclaimed)));
                    }
                    written_again(&vm);
                    events.push(Event::Sent(Sent { bytes: 100, full: 1, ..Sent::default() }));
                    events.push(Event::Message(Message::RoundDone(round)));
                }
                Action::Announce { round, .. } => {
                    events.push(Event::Message(Message::RoundDone(round)));
                }
                Action::PeekDirty => {
                    let dirty = changes.as_ref().unwrap().peek().unwrap();
                    let page_hints = vm.page_hints();
                    events.push(Event::Peeked { dirty, page_hints });
                }
                Action::TakeDirty => {
                    let dirty = changes.as_ref().unwrap().take().unwrap();
                    let page_hints = vm.page_hints();
                    written_again(&vm);
                    events.push(Event::Dirty { dirty, page_hints });
                }
                Action::Stop { timeout } => {
                    let stopped = vm.stop_for_move(timeout).unwrap();
                    began = done();
                    let looked = changes.as_ref().unwrap().last(&stopped, source.unsent());
                    let looked = looked.unwrap();
                    let (needed, quiescent) = (stopped.queue_pages(), stopped.quiescent());
                    let (dirty, page_hints) = (looked.dirty, looked.page_hints);
                    let (requested, stopped_at) = (now, now);
                    events.push(Event::Stopped(Stopped {
                        requested,
                        stopped: stopped_at,
                        quiescent,
                        dirty,
                        page_hints,
                        needed,
                    }));
                    paused = Some(stopped);
                }
                Action::SendLast { pages, follow, .. } => {
                    last = pages.iter().chain(follow.iter()).count();
                    events.push(Event::Held);
                }
                Action::Commit(_) => {
                    let (allocated, words) = done();
                    assert!(paused.is_some() && last >= 2, "{last} pages");
                    let (allocated, words) = (allocated - began.0, words - began.1);
                    return Work { allocated, words, pages: last };
                }
                _ => {}
            }
        }
        assert!(!events.is_empty(), "{} in the middle of a move", source.doing());
        actions = events.into_iter().flat_map(|event| source.handle(event, now)).collect();
    }
}

#[test]
fn work_in_the_blackout_does_not_grow_with_memory() {
    if !kvm() {
        return;
    }
    for mode in [Mode::Auto, Mode::PreCopy, Mode::Hybrid] {
        let (small, large) = (blackout(16 << 20, mode), blackout(4 << 30, mode));
        eprintln!("{mode:?}: 16 MiB {small:?}, 4 GiB {large:?}");
        // A few pages of difference are the VMM's own writes; a set of all pages would be far more.
        assert!(large.pages <= small.pages + 8, "{mode:?}: {small:?}, {large:?}");
        assert!(large.allocated <= small.allocated + 2048, "{mode:?}: {small:?}, {large:?}");
        // The rest is one word per 128 MiB, which says that nothing in it is hinted.
        let summaries = (4 << 30) / (128 << 20);
        assert!(large.words <= small.words + summaries + 64, "{mode:?}: {small:?}, {large:?}");
    }
}
