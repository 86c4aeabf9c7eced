//! Copies the memory of a running VM, as it was at one instant.
//!
//! All memory is protected against writes; the VM is stopped while the protection is completed and
//! its state is captured, and continues at once. A thread copies page after page and lifts the
//! protection; a page that a thread tries to write to meanwhile is copied first. So the blackout
//! depends neither on the size of the memory nor on how fast it changes.
//!
//! Protecting costs 65 ns per page, which is nothing for a guest of some megabytes, and more than
//! the whole pause may take for one of gigabytes. So a large guest's memory is protected before the
//! pause. Pages that it writes to until then are released, and handled in the pause: there are few,
//! as after a round of a move.
//!
//! ```text
//!  this thread   protect (if large) ── quiesce ── protect the rest, capture ── resume ── wait
//!  copier        release written pages ────────────────────────────▶ copy, written pages first
//!  writer                                                            write to the sink
//! ```
//! The copier never waits for the disk while a page is wanted, unless it is ahead of it by
//! [`AHEAD_MAX`].

mod copier;

use super::{
    Error, Page, Sink,
    copy::{self, Alive, Copied, Mode, QUIESCE},
};
use crate::{
    host::{
        patient::give_way,
        urgent::{Side, Urgent},
        watchdog::{self, Doing},
    },
    memory::{Complete, GuestRam, PageSet, Userfault, Watch},
    vm::Vm,
};
use copier::Copier;
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};
use vmm_lite_interface::layout::{CONTROL_PAGE, PAGE_SIZE};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Most pages that are protected in the pause; with more, all are protected before it. (Half a
/// millisecond, the cost of the faults that a guest then has while it quiesces.)
const IN_PAUSE: usize = 8192;
/// Untouched pages cost this much less.
const UNTOUCHED: usize = 6;
/// Most pages released before the pause that are copied in it; with more, they are protected again.
const COPIED_IN_PAUSE: usize = 512;
/// The copier works in the background while it is less far ahead of the writer, in pages.
const AHEAD: usize = 2048;
/// Faults wait too when it is this far ahead. (64 MiB.)
const AHEAD_MAX: usize = 16_384;
/// Before the guest is asked to quiesce, the pages that it writes to all the time are released:
/// this is finished when nothing was released for this long …
const SETTLED: Duration = Duration::from_millis(1);
/// … and the guest is asked anyway after this long.
const SETTLE_MAX: Duration = Duration::from_millis(20);
/// How often the progress is reported.
const TELL: Duration = Duration::from_millis(100);

/// The stage of a copy.
enum Stage {
    /// Pages that are written to are released, and noted here.
    Before { let_go: PageSet },
    /// All pages but these had the content to be copied when this began. The copier knows which are
    /// left.
    Copying { page_hints: PageSet, copied: Vec<usize> },
    /// It failed: all pages are released.
    Over,
}

/// State that the threads share.
struct Cow<'vm> {
    userfault: Userfault,
    ram: Arc<GuestRam>,
    complete: Complete<'vm>,
    stage: Mutex<Stage>,
    /// Wakes the copier: the stage has changed, or the writer has caught up.
    event: EventFd,
    /// Pages that the writer has not written yet.
    ahead: AtomicUsize,
    /// Pages copied or skipped.
    done: AtomicUsize,
    faults: AtomicU64,
    /// The writer accepts no more.
    failed: AtomicBool,
    left_out: AtomicUsize,
}

/// Copies `vm`, which continues to run.
pub(super) fn copy(
    vm: &Vm,
    complete: Complete<'_>,
    userfault: Userfault,
    sink: &mut dyn Sink,
    alive: &mut Alive<'_>,
) -> Result<Copied, Error> {
    let ram = Arc::clone(vm.ram());
    let pages = ram.pages();
    userfault.register(0..pages, Watch::Writes)?;
    let event = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
        .map_err(super::host("make an event descriptor"))?;
    let cow = Cow {
        userfault,
        ram,
        complete,
        stage: Mutex::new(Stage::Before { let_go: PageSet::none(pages) }),
        event,
        ahead: AtomicUsize::new(0),
        done: AtomicUsize::new(0),
        faults: AtomicU64::new(0),
        failed: AtomicBool::new(false),
        left_out: AtomicUsize::new(0),
    };
    let (to_writer, from_copier) = channel();
    let (done, finished) = channel();
    thread::scope(|scope| {
        let cannot = super::host("start a thread");
        let copies = thread::Builder::new().name("copier".into()).spawn_scoped(scope, {
            let (cow, to_writer) = (&cow, to_writer.clone());
            move || {
                let _attends = watchdog::attend("copier");
                let _owes = watchdog::owe(Doing::Copy);
                let result = cow.serve(&to_writer);
                // The waiting thread reads the result.
                let _ = done.send(());
                result
            }
        });
        let copies = copies.map_err(cannot)?;
        // Until the copy is in progress only this drop ends the copier.
        let over = Over(&cow);
        let writes = thread::Builder::new()
            .name("writer".into())
            .spawn_scoped(scope, {
                let cow = &cow;
                move || {
                    give_way();
                    let _attends = watchdog::attend("writer");
                    let _owes = watchdog::owe(Doing::Write);
                    cow.write(from_copier, sink)
                }
            })
            .map_err(super::host("start a thread"))?;
        let taken = cow.take(vm, &to_writer);
        drop(to_writer);
        let watched = taken.and_then(|taken| {
            while finished.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
                if !alive(cow.done.load(Relaxed)) {
                    return Err(Error::Cancelled);
                }
            }
            Ok(taken)
        });
        drop(over);
        // A thread that panicked has printed why.
        let panicked = || super::host("copy the VM")(std::io::ErrorKind::Other.into());
        let (copied, written) = watchdog::waits(|| (copies.join(), writes.join()));
        let copied = copied.unwrap_or_else(|_| Err(panicked()));
        let written = written.unwrap_or_else(|_| Err(panicked()));
        let mut taken = watched?;
        written?;
        copied?;
        taken.faults = cow.faults.load(Relaxed);
        taken.left_out = cow.left_out.load(Relaxed);
        Ok(taken)
    })
}

/// Ends a copy that is not finished when it is dropped.
struct Over<'a>(&'a Cow<'a>);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        *self.0.stage() = Stage::Over;
        self.0.wake();
    }
}

impl Cow<'_> {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Cannot overflow in practice, and a full counter wakes the copier too.
        let _ = self.event.write(1);
    }

    // On the requesting thread.

    /// Stops the VM, has its memory protected and its state captured, and resumes it.
    fn take(&self, vm: &Vm, to_writer: &Sender<Vec<Page>>) -> Result<Copied, Error> {
        let pages = self.ram.pages();
        let touched = copy::touched(self.complete)?.len();
        let before = touched + (pages - touched) / UNTOUCHED > IN_PAUSE;
        if before {
            self.userfault.protect(0..pages, true)?;
            self.settle();
        }
        let urgent = (Urgent::this(Side::Source), vm.urgent_vcpus(Side::Source));
        let mut paused = vm.quiesce(QUIESCE)?;
        let captured = (|| {
            let page_hints = paused.page_hints();
            self.seize(before, page_hints.clone(), to_writer)?;
            let memory = Instant::now();
            Ok::<_, Error>((paused.capture()?, page_hints, memory))
        })();
        let quiescent = paused.quiescent();
        let (state, page_hints, memory) = match captured {
            Ok(captured) => captured,
            Err(e) => {
                *self.stage() = Stage::Over;
                self.wake();
                paused.resume_here()?;
                return Err(e);
            }
        };
        let phases = copy::resume(paused, memory)?;
        drop(urgent);
        self.wake();
        let (mode, phases) = (Mode::CopyOnWrite, Some(phases));
        Ok(Copied { state, page_hints, left_out: 0, quiescent, mode, phases, faults: 0 })
    }

    /// Waits until the pages are released that the guest writes to all the time.
    fn settle(&self) {
        let begun = Instant::now();
        let mut seen = self.faults.load(Relaxed);
        while begun.elapsed() < SETTLE_MAX {
            thread::park_timeout(SETTLED);
            let now = self.faults.load(Relaxed);
            if now == seen {
                return;
            }
            seen = now;
        }
    }

    /// The VM is stopped: unprotected pages are protected now, or copied right here.
    fn seize(
        &self,
        before: bool,
        page_hints: PageSet,
        to_writer: &Sender<Vec<Page>>,
    ) -> Result<(), Error> {
        let mut stage = self.stage();
        let mut copied = Vec::new();
        // The VMM writes it at the resume, while the guest waits.
        let control = (CONTROL_PAGE / PAGE_SIZE) as usize;
        let mut bare = match &mut *stage {
            Stage::Before { let_go } if before => {
                let mut bare = std::mem::replace(let_go, PageSet::none(0));
                bare.insert(control);
                bare
            }
            Stage::Before { .. } | Stage::Copying { .. } | Stage::Over => {
                self.userfault.protect(0..self.ram.pages(), true)?;
                self.userfault.protect(control..control + 1, false)?;
                let mut bare = PageSet::none(self.ram.pages());
                bare.insert(control);
                bare
            }
        };
        bare.take_out(&page_hints);
        let mut pages = bare.iter();
        let mut some = Vec::new();
        // The lowest first: the control page is one of them.
        for page in pages.by_ref().take(COPIED_IN_PAUSE) {
            some.push((page, copy::content(&self.ram, page)?));
            copied.push(page);
        }
        for run in runs(pages) {
            self.userfault.protect(run, true)?;
        }
        self.hand_over(some, to_writer);
        *stage = Stage::Copying { page_hints, copied };
        Ok(())
    }

    fn hand_over(&self, pages: Vec<Page>, to_writer: &Sender<Vec<Page>>) {
        if !pages.is_empty() {
            self.ahead.fetch_add(pages.len(), SeqCst);
            // A writer that has ended has reported why.
            let _ = to_writer.send(pages);
        }
    }

    // On the writer's thread.

    /// Writes the pages that arrive, until the channel is closed.
    fn write(&self, from: Receiver<Vec<Page>>, sink: &mut dyn Sink) -> Result<(), Error> {
        let mut result = Ok(());
        while let Ok(pages) = watchdog::waits(|| from.recv()) {
            if result.is_ok() {
                result = sink.pages(&pages).map_err(Error::Sink);
                if result.is_err() {
                    self.failed.store(true, SeqCst);
                }
            }
            let before = self.ahead.fetch_sub(pages.len(), SeqCst);
            let now = before - pages.len();
            if result.is_err() || before >= AHEAD && now < AHEAD || before >= AHEAD_MAX {
                self.wake();
            }
        }
        result
    }

    // On the copier's thread.

    /// Serves faults and copies, until all is copied or the copy ends.
    fn serve(&self, to_writer: &Sender<Vec<Page>>) -> Result<(), Error> {
        let result = Copier::new(self, to_writer).serve();
        // However it ended, no thread may wait for a page any more.
        let let_go = self.userfault.unregister(0..self.ram.pages());
        result.and(let_go.map_err(Error::from))
    }
}

/// Page numbers in ascending order, as ranges.
fn runs(pages: impl Iterator<Item = usize>) -> impl Iterator<Item = Range<usize>> {
    let mut pages = pages.peekable();
    std::iter::from_fn(move || {
        let first = pages.next()?;
        let mut end = first + 1;
        while pages.next_if_eq(&end).is_some() {
            end += 1;
        }
        Some(first..end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbors_become_a_range() {
        let of = |pages: &[usize]| runs(pages.iter().copied()).collect::<Vec<_>>();
        assert_eq!(of(&[1, 2, 3, 7, 9, 10]), [1..4, 7..8, 9..11]);
        assert!(of(&[]).is_empty());
    }
}
