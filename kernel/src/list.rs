//! Intrusive lists: members carry their own links, so joining and leaving a list allocates nothing
//! and takes the same time wherever in the list the member is.

use core::{cell::Cell, ptr::NonNull};

/// What a member of a [`List`] carries. A thing is in one list at most.
#[derive(Debug)]
pub struct Links<T> {
    previous: Cell<Option<NonNull<T>>>,
    next: Cell<Option<NonNull<T>>>,
    list: Cell<Option<NonNull<List<T>>>>,
}

impl<T> Default for Links<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Links<T> {
    /// In no list.
    #[must_use]
    pub const fn new() -> Self {
        Self { previous: Cell::new(None), next: Cell::new(None), list: Cell::new(None) }
    }
}

/// Things that carry [`Links`].
///
/// # Safety
/// `links` returns the same links each time.
pub unsafe trait Linked: Sized {
    /// The links.
    fn links(&self) -> &Links<Self>;
}

/// A doubly linked list.
#[derive(Debug)]
pub struct List<T> {
    first: Cell<Option<NonNull<T>>>,
    last: Cell<Option<NonNull<T>>>,
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> List<T> {
    /// Nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: Cell::new(None), last: Cell::new(None) }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.get().is_none()
    }
}

impl<T: Linked> List<T> {
    /// Puts `member` at the end.
    ///
    /// # Safety
    /// `member` is in no list. It and the list stay where they are, alive, until it is in the list
    /// no longer.
    pub unsafe fn push_back(&self, member: NonNull<T>) {
        // SAFETY: members are alive.
        let links = unsafe { member.as_ref() }.links();
        debug_assert!(links.list.get().is_none(), "in a list already");
        let last = self.last.replace(Some(member));
        links.previous.set(last);
        links.next.set(None);
        links.list.set(Some(NonNull::from(self)));
        match last {
            // SAFETY: members are alive.
            Some(last) => unsafe { last.as_ref() }.links().next.set(Some(member)),
            None => self.first.set(Some(member)),
        }
    }

    /// Puts `member` at the front.
    ///
    /// # Safety
    /// As for [`push_back`](Self::push_back).
    pub unsafe fn push_front(&self, member: NonNull<T>) {
        // SAFETY: members are alive.
        let links = unsafe { member.as_ref() }.links();
        debug_assert!(links.list.get().is_none(), "in a list already");
        let first = self.first.replace(Some(member));
        links.previous.set(None);
        links.next.set(first);
        links.list.set(Some(NonNull::from(self)));
        match first {
            // SAFETY: members are alive.
            Some(first) => unsafe { first.as_ref() }.links().previous.set(Some(member)),
            None => self.last.set(Some(member)),
        }
    }

    /// Takes the first.
    pub fn pop_front(&self) -> Option<NonNull<T>> {
        let first = self.first.get()?;
        // SAFETY: it is in this list.
        unsafe { self.unlink(first) };
        Some(first)
    }

    /// The first, which stays.
    pub fn first(&self) -> Option<NonNull<T>> {
        self.first.get()
    }

    /// The one behind `member` in its list.
    ///
    /// # Safety
    /// `member` is alive.
    pub unsafe fn after(member: NonNull<T>) -> Option<NonNull<T>> {
        // SAFETY: as the caller promises.
        unsafe { member.as_ref() }.links().next.get()
    }

    /// Takes `member` out of whatever list it is in.
    ///
    /// # Safety
    /// `member` is alive.
    pub unsafe fn remove(member: NonNull<T>) {
        // SAFETY: as the caller promises.
        if let Some(list) = unsafe { member.as_ref() }.links().list.get() {
            // SAFETY: lists stay while there are members; this is the one that it is in.
            unsafe { list.as_ref().unlink(member) };
        }
    }

    /// # Safety
    /// `member` is in this list.
    unsafe fn unlink(&self, member: NonNull<T>) {
        // SAFETY: members are alive.
        let links = unsafe { member.as_ref() }.links();
        let (previous, next) = (links.previous.take(), links.next.take());
        links.list.set(None);
        match previous {
            // SAFETY: members are alive.
            Some(previous) => unsafe { previous.as_ref() }.links().next.set(next),
            None => self.first.set(next),
        }
        match next {
            // SAFETY: members are alive.
            Some(next) => unsafe { next.as_ref() }.links().previous.set(previous),
            None => self.last.set(previous),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    struct Node(usize, Links<Node>);

    // SAFETY: a field.
    unsafe impl Linked for Node {
        fn links(&self) -> &Links<Self> {
            &self.1
        }
    }

    fn members(list: &List<Node>) -> Vec<usize> {
        // SAFETY: nodes outlive lists.
        core::iter::successors(list.first(), |n| unsafe { List::after(*n) })
            .map(|n| unsafe { n.as_ref() }.0)
            .collect()
    }

    proptest! {
        /// Two lists and a model of each; members come, go from the front, and are taken out
        /// anywhere.
        #[test]
        fn lists_keep_their_order(
            steps in proptest::collection::vec((0..5_u8, 0..12_usize), 0..200),
        ) {
            let nodes: Vec<Node> = (0..12).map(|n| Node(n, Links::new())).collect();
            let lists = [List::new(), List::new()];
            let mut models = [Vec::new(), Vec::new()];
            for (what, n) in steps {
                let node = NonNull::from(&nodes[n]);
                match what {
                    0 | 1 if !models.concat().contains(&n) => {
                        // SAFETY: in no list by the model; nodes and lists outlive this loop.
                        unsafe { lists[usize::from(what)].push_back(node) };
                        models[usize::from(what)].push(n);
                    }
                    2 => {
                        // SAFETY: nodes outlive lists.
                        let got = lists[n % 2].pop_front().map(|n| unsafe { n.as_ref() }.0);
                        let model = &mut models[n % 2];
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(got, expected);
                    }
                    3 => {
                        // SAFETY: alive.
                        unsafe { List::remove(node) };
                        models.iter_mut().for_each(|m| m.retain(|k| *k != n));
                    }
                    4 if !models.concat().contains(&n) => {
                        // SAFETY: as for those that come at the end.
                        unsafe { lists[n % 2].push_front(node) };
                        models[n % 2].insert(0, n);
                    }
                    _ => {}
                }
                for (list, model) in lists.iter().zip(&models) {
                    let got: Vec<usize> = members(list);
                    prop_assert_eq!(&got, model);
                    prop_assert_eq!(list.is_empty(), model.is_empty());
                }
            }
        }
    }
}
