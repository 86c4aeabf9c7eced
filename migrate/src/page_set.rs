//! Sets of pages.
//!
//! A set costs what is in it and not what could be: it has groups for the pages that it holds, and
//! nothing for the rest of the memory. So work on the few pages of a switch takes as long in a VM
//! of 64 GiB as in one of 16 MiB.

use crate::wire::Run;

/// Words of a group.
const WORDS: usize = 8;

/// Pages of a group: as many as one page table of a guest maps.
pub const GROUP: usize = WORDS * 64;

/// A set of page numbers below a limit.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct PageSet {
    /// Groups that hold a page, in ascending order of their numbers.
    groups: Vec<Group>,
    limit: usize,
}

/// Bit `n % 64` of word `n / 64` stands for page `number * GROUP + n`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Group {
    number: usize,
    words: [u64; WORDS],
}

impl Group {
    fn is_empty(&self) -> bool {
        self.words.iter().fold(0, |all, word| all | word) == 0
    }

    fn combine(&mut self, other: &Self, with: impl Fn(u64, u64) -> u64) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a = with(*a, *b));
    }

    /// The pages from bit `from` of the group on.
    fn iter_from(&self, from: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { number, words } = *self;
        let first = from / 64;
        words.into_iter().enumerate().skip(first).flat_map(move |(n, word)| {
            let mut left = if n == first { word & u64::MAX << (from % 64) } else { word };
            std::iter::from_fn(move || {
                let bit = left.checked_ilog2().map(|_| left.trailing_zeros())?;
                left &= left - 1;
                Some(number * GROUP + n * 64 + bit as usize)
            })
        })
    }
}

/// A page's group, word in the group and bit in the word.
const fn place(page: usize) -> (usize, usize, u64) {
    (page / GROUP, page % GROUP / 64, 1 << (page % 64))
}

/// The groups from `number` on. Similar sets find it at the first position.
fn groups_from(groups: &[Group], number: usize) -> &[Group] {
    match groups.first() {
        Some(first) if first.number < number => {
            &groups[groups.partition_point(|group| group.number < number)..]
        }
        _ => groups,
    }
}

impl PageSet {
    /// The empty set of pages below `limit`.
    #[must_use]
    pub const fn none(limit: usize) -> Self {
        Self { groups: Vec::new(), limit }
    }

    /// All pages below `limit`.
    #[must_use]
    pub fn all(limit: usize) -> Self {
        let group = |number| Group { number, words: [u64::MAX; WORDS] };
        let mut all = Self { groups: (0..limit.div_ceil(GROUP)).map(group).collect(), limit };
        all.trim();
        all
    }

    /// From a bitmap: bit `n % 64` of word `n / 64` stands for page `n`, as in KVM's dirty log.
    /// Bits at or past `limit` are dropped, missing words are zero.
    #[must_use]
    pub fn from_words(words: &[u64], limit: usize) -> Self {
        let mut pages = Self::none(limit);
        for (number, words) in words.chunks(WORDS).enumerate() {
            if words.iter().fold(0, |all, word| all | word) != 0 {
                let mut group = Group { number, words: [0; WORDS] };
                group.words[..words.len()].copy_from_slice(words);
                pages.groups.push(group);
            }
        }
        pages.trim();
        pages
    }

    /// Drops what is at or past the limit.
    fn trim(&mut self) {
        let (last, word, bit) = place(self.limit);
        self.groups.truncate(self.groups.partition_point(|group| group.number <= last));
        if let Some(group) = self.groups.last_mut().filter(|group| group.number == last) {
            group.words[word] &= bit - 1;
            group.words[word + 1..].fill(0);
            if group.is_empty() {
                self.groups.pop();
            }
        }
    }

    /// The limit below which page numbers lie.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Number of pages in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        let words = self.groups.iter().flat_map(|group| group.words);
        words.map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The position of the group with this number, or where to insert it. Most pages arrive in
    /// ascending order.
    fn find(&self, number: usize) -> Result<usize, usize> {
        match self.groups.last() {
            Some(last) if last.number == number => Ok(self.groups.len() - 1),
            Some(last) if last.number > number => {
                self.groups.binary_search_by_key(&number, |group| group.number)
            }
            _ => Err(self.groups.len()),
        }
    }

    /// Whether `page` is in the set.
    #[must_use]
    pub fn contains(&self, page: usize) -> bool {
        let (number, word, bit) = place(page);
        self.find(number).is_ok_and(|at| self.groups[at].words[word] & bit != 0)
    }

    /// Adds a page; ignores one at or past the limit.
    pub fn insert(&mut self, page: usize) {
        if page < self.limit {
            let (number, word, bit) = place(page);
            self.group(number).words[word] |= bit;
        }
    }

    /// The group with this number. Inserts it if it is missing: the caller then adds a page to it.
    fn group(&mut self, number: usize) -> &mut Group {
        let at = self.find(number).unwrap_or_else(|at| {
            self.groups.insert(at, Group { number, words: [0; WORDS] });
            at
        });
        &mut self.groups[at]
    }

    /// Removes a page. Returns whether it was in the set.
    pub fn remove(&mut self, page: usize) -> bool {
        let (number, word, bit) = place(page);
        let Ok(at) = self.find(number) else { return false };
        let group = &mut self.groups[at];
        let was = group.words[word] & bit != 0;
        group.words[word] &= !bit;
        if group.is_empty() {
            self.groups.remove(at);
        }
        was
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        if other.groups.is_empty() {
            return;
        }
        let both = self.groups.len() + other.groups.len();
        let mine = std::mem::replace(&mut self.groups, Vec::with_capacity(both));
        let (mut mine, mut theirs) = (mine.as_slice(), other.groups.as_slice());
        while let (Some(a), Some(b)) = (mine.first(), theirs.first()) {
            let mut next = if a.number <= b.number { *a } else { *b };
            if a.number == b.number {
                next.combine(b, |a, b| a | b);
            }
            mine = &mine[usize::from(next.number == a.number)..];
            theirs = &theirs[usize::from(next.number == b.number)..];
            self.groups.push(next);
        }
        self.groups.extend_from_slice(mine);
        self.groups.extend_from_slice(theirs);
        if self.limit < other.limit {
            self.trim();
        }
    }

    /// Removes all of `other`.
    pub fn take_out(&mut self, other: &Self) {
        let mut theirs = other.groups.as_slice();
        self.groups.retain_mut(|group| {
            theirs = groups_from(theirs, group.number);
            if let Some((same, rest)) =
                theirs.split_first().filter(|(g, _)| g.number == group.number)
            {
                group.combine(same, |a, b| a & !b);
                theirs = rest;
            }
            !group.is_empty()
        });
    }

    /// Keeps only pages that are in `other` too.
    pub fn keep(&mut self, other: &Self) {
        let mut theirs = other.groups.as_slice();
        self.groups.retain_mut(|group| {
            theirs = groups_from(theirs, group.number);
            let Some((same, rest)) = theirs.split_first().filter(|(g, _)| g.number == group.number)
            else {
                return false;
            };
            group.combine(same, |a, b| a & b);
            theirs = rest;
            !group.is_empty()
        });
    }

    /// The pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.groups.iter().flat_map(|group| group.iter_from(0))
    }

    /// The first page at or after `from`.
    #[must_use]
    pub fn next_from(&self, from: usize) -> Option<usize> {
        let number = from / GROUP;
        let groups = groups_from(&self.groups, number);
        let of_group = |group: &Group| {
            group.iter_from(if group.number == number { from % GROUP } else { 0 }).next()
        };
        groups.iter().find_map(of_group)
    }

    /// The numbers of the groups of [`GROUP`] pages that hold a page, in ascending order.
    pub fn groups(&self) -> impl Iterator<Item = usize> + '_ {
        self.groups.iter().map(|group| group.number)
    }

    /// Adds the pages of the group `number` whose bits are set in `words`, as in
    /// [`from_words`](Self::from_words).
    pub fn insert_group(&mut self, number: usize, words: [u64; GROUP / 64]) {
        if words != [0; WORDS] && number <= self.limit / GROUP {
            self.group(number).combine(&Group { number, words }, |a, b| a | b);
            if number == self.limit / GROUP {
                self.trim();
            }
        }
    }

    /// Runs of consecutive pages, in ascending order: first and count.
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let mut pages = self.iter().peekable();
        std::iter::from_fn(move || {
            let first = pages.next()?;
            let mut count = 1;
            while pages.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            Some((first as u64, count as u64))
        })
    }

    /// Adds runs of pages; ignores those at or past the limit.
    pub fn insert_runs(&mut self, runs: &[Run]) {
        let limit = self.limit as u64;
        for &(first, count) in runs {
            let end = first.saturating_add(count).min(limit) as usize;
            let mut at = first.min(limit) as usize;
            while at < end {
                let until = end.min(at / 64 * 64 + 64);
                let (number, word, _) = place(at);
                let bits = u64::MAX << (at % 64) & u64::MAX >> (63 - (until - 1) % 64);
                self.group(number).words[word] |= bits;
                at = until;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(
            limit in prop::sample::select(vec![1, 63, 64, 511, 512, 513, 1000, 5000, 65_000]),
            a: Vec<u16>,
            b: Vec<u16>,
        ) {
            let set = |v: &[u16]| v.iter().map(|n| *n as usize).filter(|n|
                *n < limit).collect::<BTreeSet<_>>();
            let pages = |v: &[u16]| { let mut p = PageSet::none(limit); v.iter().for_each(|n|
                p.insert(*n as usize)); p };
            let (sa, sb) = (set(&a), set(&b));
            let list = |p: &PageSet| p.iter().collect::<Vec<_>>();
            prop_assert_eq!(list(&pages(&a)), sa.iter().copied().collect::<Vec<_>>());
            let mut sum = pages(&a); sum.add(&pages(&b));
            prop_assert_eq!(list(&sum), sa.union(&sb).copied().collect::<Vec<_>>());
            let mut rest = pages(&a); rest.take_out(&pages(&b));
            prop_assert_eq!(list(&rest), sa.difference(&sb).copied().collect::<Vec<_>>());
            let mut both = pages(&a); both.keep(&pages(&b));
            prop_assert_eq!(list(&both), sa.intersection(&sb).copied().collect::<Vec<_>>());
            let mut runs = PageSet::none(limit);
            runs.insert_runs(&pages(&a).runs().collect::<Vec<_>>());
            prop_assert_eq!(&runs, &pages(&a));
            let ends = pages(&a).runs().collect::<Vec<_>>();
            prop_assert!(ends.is_sorted_by(|x, y| x.0 + x.1 < y.0), "rows are as long as they can \
                be");
            for from in [0, limit / 2, limit] {
                prop_assert_eq!(pages(&a).next_from(from), sa.range(from..).next().copied());
            }
            let mut fewer = pages(&a);
            for n in &sb { prop_assert_eq!(fewer.remove(*n), sa.contains(n)); }
            prop_assert_eq!(list(&fewer), sa.difference(&sb).copied().collect::<Vec<_>>());
            prop_assert_eq!(PageSet::all(limit).len(), limit);
            prop_assert_eq!(pages(&a).len(), sa.len());
            // A set has one representation, whatever operations made it.
            sum.take_out(&pages(&b));
            prop_assert_eq!(&sum, &rest);
            fewer.add(&both);
            prop_assert_eq!(&fewer, &pages(&a));
            let mut words = vec![0_u64; limit / 64 + 3];
            sa.iter().for_each(|n| words[n / 64] |= 1 << (n % 64));
            prop_assert_eq!(&PageSet::from_words(&words, limit), &pages(&a));
            let mut groups = PageSet::none(limit);
            words.resize(words.len().next_multiple_of(WORDS), 0);
            for (number, words) in words.as_chunks().0.iter().enumerate().rev() {
                groups.insert_group(number, *words);
            }
            prop_assert_eq!(&groups, &pages(&a));
            prop_assert!(groups.groups().eq(sa.iter().map(|n| n / GROUP).collect::<BTreeSet<_>>()));
        }
    }

    #[test]
    fn bits_past_the_limit_never_show() {
        for limit in [0, 1, 70, 511, 512, 600] {
            let full = vec![u64::MAX; 20];
            assert_eq!(PageSet::from_words(&full, limit), PageSet::all(limit));
            let mut longer = PageSet::none(limit);
            longer.add(&PageSet::all(5000));
            assert_eq!(longer, PageSet::all(limit));
            let mut group = PageSet::none(limit);
            (0..3).for_each(|n| group.insert_group(n, [u64::MAX; WORDS]));
            assert_eq!(group, PageSet::all(limit));
            let mut set = PageSet::none(limit);
            set.insert(limit);
            assert!(set.is_empty() && !set.contains(limit) && !PageSet::all(limit).contains(limit));
        }
    }

    /// The memory that a set takes follows what is in it, not the VM's size.
    #[test]
    fn a_few_pages_cost_the_same_in_every_vm() {
        let pages = [3, 700, 4000];
        let cost = |limit: usize| {
            let (mut some, mut more) = (PageSet::none(limit), PageSet::none(limit));
            pages.iter().for_each(|page| some.insert(*page));
            more.insert(90);
            some.add(&more);
            some.take_out(&PageSet::all(limit));
            more.keep(&PageSet::all(limit));
            more.add(&some);
            (some.groups.capacity(), more.groups.capacity(), more.groups.len())
        };
        assert_eq!(cost(1 << 12), cost(1 << 24));
    }
}
