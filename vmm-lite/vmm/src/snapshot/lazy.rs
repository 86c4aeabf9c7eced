//! Memory from a snapshot file while the guest runs.
//!
//! Nothing is loaded before the guest starts. A wanted page is read, checked, and filled in; the
//! others follow in the background, in order. So the start takes the same time whatever the size of
//! the memory. A page with a wrong checksum is never filled in: the thread that wants it waits, and
//! the VM ends.
//!
//! While pages are missing the memory is not [complete](crate::memory::Complete): operations that
//! copy or move the VM wait for the last page.

use super::{Error, sink::Input};
use crate::{
    capture::{
        pace::{self, Pace},
        touched,
    },
    host::confine::{self, Thread},
    host::watchdog::{self, Doing},
    memory::{Arriving, Fault, GuestRam, PAGE, Supply, Userfault, Watch},
    vm::Vm,
};
use migrate::snapshot::{Block, Content, GROUP, Reader};
use std::{os::fd::AsRawFd, thread};

/// Begins to load the memory of `vm`, which was prepared and has not run. From here on threads that
/// touch its memory may wait for pages; another thread serves them. If the file is damaged the VM
/// ends.
///
/// # Errors
/// [`Error`]: nothing was begun.
pub fn begin(vm: &Vm, snapshot: Reader<Input>) -> Result<(), Error> {
    let ram = vm.ram();
    let fresh = ram.complete().ok_or(Error::Loading)?;
    let memory = vm.unstarted_memory().ok_or(Error::Ran)?;
    let userfault = Userfault::open(ram)?;
    let touched = touched(fresh)?;
    let arriving = ram.expect(Supply::Snapshot, ram.pages());
    let arriving = arriving.map_err(super::host("make an event descriptor"))?;
    let mut loader = Loader {
        blocks: vec![None; snapshot.groups()],
        snapshot,
        userfault,
        arriving,
        next: 0,
        room: vec![[0; PAGE]; pace::MOST],
    };
    // Pages that the VMM wrote when it made the VM are present, and would be mistaken for the
    // guest's.
    for page in touched.iter() {
        let content = loader.content(page)?;
        loader.read(page, content, 1)?;
        memory.write_page(page, &loader.room[0])?;
    }
    loader.userfault.register(0..ram.pages(), Watch::Missing)?;
    let vm = vm.clone();
    let load = move || {
        let confined = confine::enter(Thread::Loader).map_err(Error::from);
        let _attends = watchdog::attend(Thread::Loader.name());
        let _owes = watchdog::owe(Doing::Load);
        match confined.and_then(|()| loader.serve(&vm)) {
            Ok(()) => loader.end(),
            // From then on missing pages read as zero, to a VM that has been stopped.
            Err(e) => vm.fail(e, || drop(loader)),
        }
    };
    let thread = thread::Builder::new().name(Thread::Loader.name().into()).spawn(load);
    thread.map(drop).map_err(super::host("start a thread"))
}

struct Loader {
    snapshot: Reader<Input>,
    blocks: Vec<Option<Block>>,
    userfault: Userfault,
    arriving: Arriving,
    /// The first page that the background work has not reached.
    next: usize,
    room: Vec<[u8; PAGE]>,
}

impl Loader {
    fn ram(&self) -> &GuestRam {
        self.userfault.ram()
    }

    /// All is present, or the VM has ended before.
    fn end(self) {
        let whole = self.next >= self.ram().pages();
        let Self { userfault, arriving, .. } = self;
        // First, as there is only one descriptor once the process has given up its privileges.
        drop(userfault);
        if whole {
            arriving.complete();
        }
    }

    /// Serves faults, and loads in between, until all is present or the VM has ended.
    fn serve(&mut self, vm: &Vm) -> Result<(), Error> {
        let (mut faults, mut pace) = (Vec::new(), Pace::default());
        while self.next < self.ram().pages() {
            let entry = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut fds = [entry(self.userfault.as_raw_fd()), entry(vm.end_fd())];
            // SAFETY: two valid entries; whatever the outcome, the work continues.
            unsafe { libc::poll(fds.as_mut_ptr(), 2, 0) };
            if fds[1].revents != 0 {
                return Ok(());
            }
            self.userfault.read(&mut faults)?;
            fail_point!("lazy.loading");
            let pages = pace.next(!faults.is_empty());
            for fault in faults.drain(..) {
                self.answer(fault)?;
            }
            self.chunk(pages)?;
        }
        Ok(())
    }

    fn content(&mut self, page: usize) -> Result<Content, Error> {
        let group = page / GROUP as usize;
        let block = match self.blocks.get_mut(group) {
            Some(Some(block)) => block,
            Some(none) => none.insert(self.snapshot.block(group)?),
            None => return Ok(Content::Absent),
        };
        Ok(block.content(page as u64))
    }

    /// Reads `count` consecutive pages of the file, and checks them.
    fn read(&mut self, page: usize, content: Content, count: usize) -> Result<(), Error> {
        let Content::Data { slot, .. } = content else {
            self.room[0].fill(0);
            return Ok(());
        };
        self.snapshot.slots(slot, &mut self.room[..count])?;
        for n in 0..count {
            let Content::Data { checksum, .. } = self.content(page + n)? else { continue };
            if crc32fast::hash(&self.room[n]) != checksum {
                return Err(migrate::snapshot::Error::Page((page + n) as u64).into());
            }
        }
        Ok(())
    }

    fn answer(&mut self, fault: Fault) -> Result<(), Error> {
        // The fault was read before its page was filled in with others.
        if fault.page < self.next {
            return Ok(());
        }
        match self.content(fault.page)? {
            content @ Content::Data { .. } => {
                self.read(fault.page, content, 1)?;
                self.userfault.copy(fault.page, &self.room[..1])?;
            }
            Content::Absent | Content::Zero => {
                self.userfault.zero(fault.page, 1)?;
            }
        }
        Ok(())
    }

    /// Loads the next few pages. Zero pages stay untouched: they become zero once they are not
    /// watched any more.
    fn chunk(&mut self, pages: usize) -> Result<(), Error> {
        let first = self.next;
        let end = (first + pages).min(self.ram().pages());
        let mut page = first;
        while page < end {
            let content = self.content(page)?;
            let Content::Data { slot, .. } = content else {
                page += 1;
                continue;
            };
            let mut count = 1;
            while page + count < end
                && matches!(self.content(page + count)?, Content::Data { slot: s,
                    .. } if s == slot.wrapping_add(count as u32))
            {
                count += 1;
            }
            self.read(page, content, count)?;
            self.userfault.copy(page, &self.room[..count])?;
            page += count;
        }
        self.userfault.unregister(first..end)?;
        self.next = end;
        self.arriving.left(self.ram().pages() - end);
        Ok(())
    }
}
