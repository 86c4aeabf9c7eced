//! The thread that copies pages: those first that a thread tries to write to.

use super::{AHEAD, AHEAD_MAX, Cow, SETTLE_MAX, SETTLED, Stage};
use crate::{
    capture::{Error, Page, copy, host, pace::Pace},
    host::{
        urgent::{Side, Urgent},
        watchdog,
    },
    memory::{Fault, PageSet},
};
use std::{
    ops::Range,
    os::fd::AsRawFd,
    sync::{
        atomic::Ordering::{Relaxed, SeqCst},
        mpsc::Sender,
    },
    time::Instant,
};

/// How many pages, aligned to this, are copied together when one of them is wanted: a program's
/// writes are near each other, and a fault costs more than copying its neighbors.
const NEIGHBORS: usize = 8;

/// See the module.
pub(super) struct Copier<'a> {
    cow: &'a Cow<'a>,
    to_writer: &'a Sender<Vec<Page>>,
    /// The pages left to copy, once the copy has begun.
    left: Option<PageSet>,
    /// The first page that is still watched.
    next: usize,
    faults: Vec<Fault>,
    pace: Pace,
    /// When the copy began, and when a page was last wanted.
    began: Instant,
    wanted: Instant,
    urgent: Option<Urgent>,
}

impl<'a> Copier<'a> {
    pub(super) fn new(cow: &'a Cow<'a>, to_writer: &'a Sender<Vec<Page>>) -> Self {
        Self {
            cow,
            to_writer,
            left: None,
            next: 0,
            faults: Vec::new(),
            pace: Pace::default(),
            began: Instant::now(),
            wanted: Instant::now(),
            // Other pages wait for it until the VM has been stopped and resumed, and has the pages
            // that it writes to all the time.
            urgent: Some(Urgent::this(Side::Source)),
        }
    }

    /// Runs until all is copied or the copy ends.
    pub(super) fn serve(mut self) -> Result<(), Error> {
        let cow = self.cow;
        while self.next < cow.ram.pages() {
            if cow.failed.load(SeqCst) || matches!(*cow.stage(), Stage::Over) {
                return Ok(());
            }
            self.begin()?;
            let hot = self.is_hot();
            let goes_on = self.left.is_some() && !hot && cow.ahead.load(SeqCst) < AHEAD;
            // If the writer falls behind, faults wait too; otherwise the thread waits for a fault
            // or a wake-up.
            let faults = cow.ahead.load(SeqCst) < AHEAD_MAX;
            let timeout = match (goes_on, hot) {
                (true, _) => 0,
                (_, true) => SETTLED.as_millis() as i32,
                _ => -1,
            };
            self.wait(faults, timeout);
            let mut waited = false;
            if faults {
                cow.userfault.read(&mut self.faults)?;
                waited = !self.faults.is_empty();
                self.answer()?;
            }
            if goes_on {
                let pages = self.pace.next(waited);
                self.chunk(pages)?;
            }
        }
        Ok(())
    }

    /// Whether the guest, which has just resumed, faults on the pages that it writes to all the
    /// time: then this thread does nothing else, and that at once.
    fn is_hot(&mut self) -> bool {
        let hot = self.wanted.elapsed() < SETTLED && self.began.elapsed() < SETTLE_MAX;
        if self.left.is_some() && !hot {
            self.urgent = None;
        }
        self.left.is_some() && hot && self.urgent.is_some()
    }

    /// Checks whether the copy has begun.
    fn begin(&mut self) -> Result<(), Error> {
        let cow = self.cow;
        if self.left.is_some() {
            return Ok(());
        }
        let stage = cow.stage();
        let Stage::Copying { page_hints, copied } = &*stage else { return Ok(()) };
        // Untouched pages are zero, and stay so until their first write, which faults here.
        let touched = cow.complete.touched();
        let mut left = touched.map_err(host("find out which memory the guest uses"))?;
        let left_out = copy::take_out(&mut left, page_hints);
        cow.left_out.store(left_out, Relaxed);
        for page in copied {
            left.remove(*page);
        }
        self.left = Some(left);
        self.began = Instant::now();
        self.wanted = self.began;
        Ok(())
    }

    fn wait(&self, faults: bool, timeout: i32) {
        let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
        let fault = if faults { self.cow.userfault.as_raw_fd() } else { -1 };
        let mut fds = [entry(self.cow.event.as_raw_fd()), entry(fault)];
        watchdog::waits(|| {
            // SAFETY: two valid entries; whatever the outcome, everything is checked again.
            unsafe { libc::poll(fds.as_mut_ptr(), 2, timeout) }
        });
        if fds[0].revents != 0 {
            // A thread that writes to it after this has made its change before.
            let _ = self.cow.event.read();
        }
    }

    /// Releases threads that wait to write.
    fn answer(&mut self) -> Result<(), Error> {
        let cow = self.cow;
        let mut faults = std::mem::take(&mut self.faults);
        for fault in faults.drain(..) {
            let page = fault.page;
            // The fault was read before its page was released with others.
            if page < self.next {
                continue;
            }
            cow.faults.fetch_add(1, Relaxed);
            let mut stage = cow.stage();
            if let Stage::Before { let_go } = &mut *stage {
                let_go.insert(page);
                // While the stage is held: no thread protects it again in between.
                cow.userfault.protect(page..page + 1, false)?;
                continue;
            }
            drop(stage);
            self.begin()?;
            self.wanted = Instant::now();
            let first = page - page % NEIGHBORS;
            let near = first.max(self.next)..(first + NEIGHBORS).min(cow.ram.pages());
            self.copy(near.clone())?;
            cow.userfault.protect(near, false)?;
        }
        self.faults = faults;
        Ok(())
    }

    /// Copies these pages, as far as they are not copied yet.
    fn copy(&mut self, pages: Range<usize>) -> Result<(), Error> {
        let Some(left) = &mut self.left else { return Ok(()) };
        let mut some = Vec::new();
        for page in pages {
            if left.contains(page) {
                left.remove(page);
                some.push((page, copy::content(&self.cow.ram, page)?));
            }
        }
        self.cow.hand_over(some, self.to_writer);
        Ok(())
    }

    /// Copies the next few pages that are left, and stops watching them.
    fn chunk(&mut self, pages: usize) -> Result<(), Error> {
        let cow = self.cow;
        let end = (self.next + pages).min(cow.ram.pages());
        self.copy(self.next..end)?;
        cow.userfault.unregister(self.next..end)?;
        self.next = end;
        cow.done.store(end, Relaxed);
        Ok(())
    }
}
