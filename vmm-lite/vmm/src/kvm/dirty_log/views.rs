//! What each user of the log has yet to see.
//!
//! The log is one, so what a user takes out of it is missing for the others: it becomes pending for
//! each of them. A user's view is the log together with its pending pages. While there is one user
//! nothing is pending, but what it put back.

use crate::memory::PageSet;
use std::ops::Range;

/// The views of the log's users. All that is taken out of the log must be reported here.
#[derive(Debug)]
pub(super) struct Views {
    views: Vec<View>,
    /// The next view's id.
    next: u64,
    /// Pages of the VM.
    pages: usize,
}

#[derive(Debug)]
struct View {
    id: u64,
    /// Pages that changed since the user last took its view, and are not in the log.
    pending: PageSet,
}

impl Views {
    /// No user, of the log of a VM with this many pages.
    pub fn none(pages: usize) -> Self {
        Self { views: Vec::new(), next: 0, pages }
    }

    /// Number of users.
    pub fn count(&self) -> usize {
        self.views.len()
    }

    /// Whether there are users beside `id`.
    pub fn has_others(&self, id: u64) -> bool {
        self.views.iter().any(|view| view.id != id)
    }

    /// Adds a user; returns its id. Its view is what is in the log.
    pub fn begin(&mut self) -> u64 {
        let id = self.next;
        self.next += 1;
        self.views.push(View { id, pending: PageSet::none(self.pages) });
        id
    }

    /// Removes a user. Returns whether none is left.
    pub fn end(&mut self, id: u64) -> bool {
        self.views.retain(|view| view.id != id);
        self.views.is_empty()
    }

    /// `id` took all that was in the log, `taken`, out of it. Returns its view, now empty.
    pub fn took(&mut self, id: u64, mut taken: PageSet) -> PageSet {
        self.others(id).for_each(|view| view.pending.add(&taken));
        if let Some(view) = self.view(id) {
            let limit = view.pending.limit();
            taken.add(&std::mem::replace(&mut view.pending, PageSet::none(limit)));
        }
        taken
    }

    /// `id` saw all that is in the log, `seen`, and left it there. Returns its view.
    pub fn saw(&mut self, id: u64, mut seen: PageSet) -> PageSet {
        if let Some(view) = self.view(id) {
            seen.add(&view.pending);
        }
        seen
    }

    /// These pages were taken out of the log, and no view loses them.
    pub fn keep(&mut self, pages: &PageSet) {
        self.views.iter_mut().for_each(|view| view.pending.add(pages));
    }

    /// `id` left `range` out of its view. Those of the pages in `cleared` that are in the range
    /// were taken out of the log for that; if there are no other users, `cleared` need not have
    /// them.
    pub fn left_out(&mut self, id: u64, range: Range<usize>, mut cleared: PageSet) {
        let mut pages = PageSet::none(self.pages);
        pages.insert_runs(&[(range.start as u64, range.len() as u64)]);
        cleared.keep(&pages);
        self.others(id).for_each(|view| view.pending.add(&cleared));
        if let Some(view) = self.view(id) {
            view.pending.take_out(&pages);
        }
    }

    /// Adds pages to the view of `id`.
    pub fn put_back(&mut self, id: u64, pages: &PageSet) {
        if let Some(view) = self.view(id) {
            view.pending.add(pages);
        }
    }

    fn view(&mut self, id: u64) -> Option<&mut View> {
        self.views.iter_mut().find(|view| view.id == id)
    }

    fn others(&mut self, id: u64) -> impl Iterator<Item = &mut View> {
        self.views.iter_mut().filter(move |view| view.id != id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{collections::BTreeSet, mem::take};

    const PAGES: usize = 40;
    type Set = BTreeSet<usize>;

    fn pages(set: &Set) -> PageSet {
        let mut pages = PageSet::none(PAGES);
        set.iter().for_each(|page| pages.insert(*page));
        pages
    }

    /// Who does something, of three: [`Step`] says what.
    type Who = usize;

    #[derive(Clone, Debug)]
    enum Step {
        Write(usize),
        Start(Who),
        Stop(Who),
        Take(Who),
        Peek(Who),
        LeaveOut(Who, Range<usize>),
        PutBack(Who, Set),
    }

    fn step() -> impl Strategy<Value = Step> {
        let who = 0..3_usize;
        let range = (0..PAGES, 0..PAGES).prop_map(|(a, b)| a.min(b)..a.max(b));
        prop_oneof![
            8 => (0..PAGES).prop_map(Step::Write),
            2 => who.clone().prop_map(Step::Start),
            1 => who.clone().prop_map(Step::Stop),
            2 => who.clone().prop_map(Step::Take),
            2 => who.clone().prop_map(Step::Peek),
            3 => (who.clone(), range).prop_map(|(who, range)| Step::LeaveOut(who, range)),
            1 => (who, prop::collection::btree_set(0..PAGES, 0..5))
                .prop_map(|(who, set)| Step::PutBack(who, set)),
        ]
    }

    /// The one log: what KVM and the marks of the VMM's writes are outside of the test.
    #[derive(Default)]
    struct Log {
        on: bool,
        dirty: Set,
        /// Whether reading it clears it.
        read_clears: bool,
    }

    proptest! {
        /// Each user's view is that of a log of its own, whatever the others do.
        #[test]
        fn a_view_is_like_a_log_of_its_own(
            read_clears: bool,
            steps in prop::collection::vec(step(), 1..80),
        ) {
            let mut log = Log { read_clears, ..Log::default() };
            let mut views = Views::none(PAGES);
            // Each user's id, and the log that it would have alone.
            let mut users: [Option<(u64, Set)>; 3] = Default::default();
            for step in steps {
                match step {
                    Step::Write(page) => {
                        if log.on {
                            log.dirty.insert(page);
                        }
                        users.iter_mut().flatten().for_each(|(_, alone)| alone.extend([page]));
                    }
                    Step::Start(who) if users[who].is_none() => {
                        if !log.on {
                            // It begins full.
                            log.dirty = (0..PAGES).collect();
                            log.on = true;
                        }
                        users[who] = Some((views.begin(), log.dirty.clone()));
                    }
                    Step::Stop(who) => {
                        if let Some((id, _)) = users[who].take() {
                            let last = views.end(id);
                            prop_assert_eq!(last, users.iter().all(Option::is_none));
                            log.on = !last;
                        }
                    }
                    Step::Take(who) => {
                        if let Some((id, alone)) = &mut users[who] {
                            let taken = pages(&take(&mut log.dirty));
                            prop_assert_eq!(views.took(*id, taken), pages(&take(alone)));
                        }
                    }
                    Step::Peek(who) => {
                        if let Some((id, alone)) = &users[who] {
                            let seen = pages(&log.dirty);
                            if log.read_clears {
                                views.keep(&seen);
                                log.dirty.clear();
                            }
                            prop_assert_eq!(views.saw(*id, seen), pages(alone));
                        }
                    }
                    Step::LeaveOut(who, range) => {
                        if let Some((id, alone)) = &mut users[who] {
                            let others = views.has_others(*id);
                            let read = if others { pages(&log.dirty) } else { pages(&Set::new()) };
                            log.dirty.retain(|page| !range.contains(page));
                            alone.retain(|page| !range.contains(page));
                            views.left_out(*id, range, read);
                        }
                    }
                    Step::PutBack(who, set) => {
                        if let Some((id, alone)) = &mut users[who] {
                            views.put_back(*id, &pages(&set));
                            alone.extend(set);
                        }
                    }
                    Step::Start(_) => {}
                }
            }
            prop_assert_eq!(views.count(), users.iter().flatten().count());
            for (id, alone) in users.iter().flatten() {
                prop_assert_eq!(views.saw(*id, pages(&log.dirty)), pages(alone));
            }
        }
    }

    #[test]
    fn a_user_alone_has_nothing_pending() {
        let mut views = Views::none(PAGES);
        let id = views.begin();
        let some = pages(&[3, 4].into());
        assert_eq!(views.took(id, some.clone()), some);
        views.left_out(id, 0..PAGES, some.clone());
        assert!(views.views.iter().all(|view| view.pending.is_empty()));
        let other = views.begin();
        assert_eq!(views.took(id, some.clone()), some);
        assert_eq!(views.took(other, pages(&Set::new())), some);
        assert!(!views.end(other) && views.end(id));
    }
}
