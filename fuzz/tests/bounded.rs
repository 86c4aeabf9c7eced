//! Every target: its kept corpus and mutations of it, within bounds of time and memory.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    fmt::Write,
    io,
    time::Duration,
};

use migrate::{source::Mode, wire::Kind};
use vmm_lite_fuzz::{TARGETS, Target, bounded, handshake, replication, wire};

/// Mutations for each target, and their time limit.
const MUTATIONS: usize = 20_000;
const LIMIT: Duration = Duration::from_secs(8);

/// Counts what a thread has allocated.
struct Counting;

thread_local! {
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(more: usize, less: usize) {
    // A thread that is ending has no counter any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        let now = (now + more).saturating_sub(less);
        held.set((now, most.max(now)));
    });
}

// SAFETY: every call is passed on to the system allocator; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller promises the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller promises the same.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller promises the same.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|t| t.name == name).expect("a target of that name")
}

fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    bounded::corpus(target(name)).expect("a kept corpus")
}

fn run(name: &str) {
    let (target, corpus) = (target(name), corpus(name));
    assert!(!corpus.is_empty(), "nothing is kept for {name}");
    let seed = 0x766d_6c69_7465;
    let (held, _) = HELD.get();
    HELD.set((held, held));
    let began = std::time::Instant::now();
    match bounded::run(target, &corpus, seed, MUTATIONS, LIMIT) {
        Ok(ran) => {
            let most = HELD.get().1 - held;
            let _ = io::Write::write_fmt(
                &mut io::stderr(),
                format_args!(
                    "fuzz: {name}: {} kept, {} mutations of seed {seed:#x}, {:.1} s, {} KiB at \
                     most\n",
                    ran.kept,
                    ran.mutations,
                    began.elapsed().as_secs_f32(),
                    most >> 10
                ),
            );
            assert!(most <= target.memory, "{most} bytes were held at a time");
        }
        Err(failure) => {
            let input = failure.input.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            panic!("{name}: {}: {}\ninput: {input}", failure.from, failure.said);
        }
    }
}

/// One test for each target.
macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_run() {
            let names = [$(stringify!($name)),*];
            assert!(TARGETS.iter().map(|t: &Target| t.name).eq(names));
        }
    };
}

targets! {
    wire handshake control_socket image snapshot input_log journal queues replication control_page
}

#[test]
fn every_message_is_kept() {
    let corpus = corpus("wire");
    let kept = |kind| {
        let is = |message: migrate::wire::Message| message.kind() == kind;
        corpus.iter().any(|(_, input)| wire::message(input).is_some_and(is))
    };
    let missing: Vec<_> = Kind::ALL.into_iter().filter(|kind| !kept(*kind)).collect();
    assert!(missing.is_empty(), "no file in corpus/wire is a whole message of these: {missing:?}");
}

#[test]
fn every_replication_message_is_kept() {
    let corpus = corpus("replication");
    let kept = |kind| {
        let is = |message: migrate::replication::wire::Message| message.kind() == kind;
        corpus.iter().any(|(_, input)| replication::messages(input).into_iter().any(is))
    };
    let kinds = migrate::replication::wire::Kind::ALL.into_iter();
    let missing: Vec<_> = kinds.filter(|kind| !kept(*kind)).collect();
    assert!(missing.is_empty(), "no file in corpus/replication has these: {missing:?}");
    assert!(corpus.iter().any(|(_, input)| replication::gives(input)), "a swap is kept");
    assert!(corpus.iter().any(|(_, input)| replication::offers(input)), "an offer is kept");
}

/// Additions to a list of events change the meaning of bytes: then the kept inputs may no longer be
/// successful moves.
#[test]
fn moves_that_are_made_are_kept_in_every_mode_and_with_every_message() {
    let corpus = corpus("handshake");
    let made: Vec<_> =
        corpus.iter().map(|(_, input)| handshake::course(input)).filter(|c| c.made).collect();
    for mode in [Mode::Auto, Mode::PreCopy, Mode::Hybrid, Mode::StopAndCopy] {
        assert!(
            made.iter().any(|c| c.mode == Some(mode)),
            "the corpus has no move in mode {mode:?}"
        );
    }
    // A move with these does not succeed.
    let ends = [Kind::Refuse, Kind::Abort];
    let reached = |kind| made.iter().any(|c| c.kinds.contains(&kind)) || ends.contains(&kind);
    let missing: Vec<_> = Kind::ALL.into_iter().filter(|kind| !reached(*kind)).collect();
    assert!(missing.is_empty(), "no successful move of the corpus has these: {missing:?}");
}
