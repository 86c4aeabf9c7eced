//! Readiness: what a thing with a descriptor is ready for, and the threads that wait for it to be.

use super::{WaitQueue, Wake};
use alloc::{rc::Rc, vec::Vec};
use core::cell::{Cell, RefCell};

/// What something with a descriptor is ready for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ready {
    /// Receiving or accepting would not wait.
    pub readable: bool,
    /// Sending would not wait.
    pub writable: bool,
    /// The peer has sent its last.
    pub peer_closed: bool,
    /// Both directions are at their end.
    pub hung_up: bool,
    /// There is an error to be fetched.
    pub error: bool,
}

/// A thread in `poll`, which waits for many things at once.
#[derive(Debug, Default)]
pub struct Poller {
    queue: WaitQueue,
    called: Cell<bool>,
}

impl Poller {
    /// Waits until one of the things that it has been added to calls, or until the deadline.
    pub fn wait(&self, deadline_ns: Option<u64>) -> Wake {
        if self.called.replace(false) {
            return Wake::Woken;
        }
        let wake = self.queue.wait(deadline_ns);
        self.called.set(false);
        wake
    }

    fn call(&self) {
        if !self.called.replace(true) {
            self.queue.wake_all();
        }
    }
}

/// The threads that wait for one thing. Shared by all that have the thing, and by those threads.
#[derive(Debug, Default)]
pub struct Waits {
    /// To receive or accept.
    pub readers: WaitQueue,
    /// To send or connect.
    pub writers: WaitQueue,
    /// Mostly one or none: no memory is needed for that.
    poller: RefCell<Option<Rc<Poller>>>,
    more_pollers: RefCell<Vec<Rc<Poller>>>,
}

impl Waits {
    /// Has `poller` called when something changes.
    pub fn add(&self, poller: &Rc<Poller>) {
        let mut first = self.poller.borrow_mut();
        if first.is_none() {
            *first = Some(Rc::clone(poller));
        } else {
            self.more_pollers.borrow_mut().push(Rc::clone(poller));
        }
    }

    /// Undoes [`add`](Self::add).
    pub fn remove(&self, poller: &Rc<Poller>) {
        let mut first = self.poller.borrow_mut();
        if first.as_ref().is_some_and(|other| Rc::ptr_eq(other, poller)) {
            *first = None;
            return;
        }
        let mut more = self.more_pollers.borrow_mut();
        if let Some(at) = more.iter().position(|other| Rc::ptr_eq(other, poller)) {
            more.swap_remove(at);
        }
    }

    /// Wakes the threads that wait for what is `ready`; of readers only the first if `one_reader`
    /// can be served.
    pub fn wake(&self, ready: Ready, one_reader: bool) {
        let over = ready.error || ready.hung_up;
        if ready.readable || over {
            if one_reader && !over {
                self.readers.wake_one();
            } else {
                self.readers.wake_all();
            }
        }
        if ready.writable || over {
            self.writers.wake_all();
        }
        if ready != Ready::default() {
            if let Some(poller) = &*self.poller.borrow() {
                poller.call();
            }
            self.more_pollers.borrow().iter().for_each(|poller| poller.call());
        }
    }
}
