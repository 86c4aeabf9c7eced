//! Sets of pages.

use crate::wire::Run;

/// A set of page numbers below a limit. Bit `n % 64` of word `n / 64` stands for page `n`, as in KVM's dirty log.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pages {
    words: Vec<u64>,
    limit: usize,
}

impl Pages {
    /// The empty set of pages below `limit`.
    #[must_use]
    pub fn none(limit: usize) -> Self {
        Self { words: vec![0; limit.div_ceil(64)], limit }
    }

    /// All pages below `limit`.
    #[must_use]
    pub fn all(limit: usize) -> Self {
        Self::from_words(vec![u64::MAX; limit.div_ceil(64)], limit)
    }

    /// From a bitmap; bits at or past `limit` are dropped, missing words are zero.
    #[must_use]
    pub fn from_words(mut words: Vec<u64>, limit: usize) -> Self {
        words.resize(limit.div_ceil(64), 0);
        if let (rest @ 1.., Some(last)) = (limit % 64, words.last_mut()) {
            *last &= (1 << rest) - 1;
        }
        Self { words, limit }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|w| *w == 0)
    }

    /// Whether `page` is in the set.
    #[must_use]
    pub fn contains(&self, page: usize) -> bool {
        page < self.limit && self.words[page / 64] >> (page % 64) & 1 == 1
    }

    /// Adds a page; one at or past the limit is left out.
    pub fn insert(&mut self, page: usize) {
        if page < self.limit {
            self.words[page / 64] |= 1 << (page % 64);
        }
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Takes all of `other` out.
    pub fn take_out(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    /// Keeps only what is in `other` too.
    pub fn keep(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= b);
    }

    /// The pages in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(n, &word)| {
            let mut left = word;
            std::iter::from_fn(move || {
                let bit = left.checked_ilog2().map(|_| left.trailing_zeros())?;
                left &= left - 1;
                Some(n * 64 + bit as usize)
            })
        })
    }

    /// Takes a page out; says whether it was in.
    pub fn remove(&mut self, page: usize) -> bool {
        let was = self.contains(page);
        if was {
            self.words[page / 64] &= !(1 << (page % 64));
        }
        was
    }

    /// The first page at or after `from`.
    #[must_use]
    pub fn next_from(&self, from: usize) -> Option<usize> {
        let mut n = from / 64;
        let mut word = *self.words.get(n)? & (u64::MAX << (from % 64));
        while word == 0 {
            n += 1;
            word = *self.words.get(n)?;
        }
        Some(n * 64 + word.trailing_zeros() as usize)
    }

    /// Pages in a row, in ascending order: first and count.
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

    /// Adds pages in rows; those at or past the limit are left out.
    pub fn insert_runs(&mut self, runs: &[Run]) {
        let limit = self.limit as u64;
        for &(first, count) in runs {
            let end = first.saturating_add(count).min(limit);
            (first.min(limit)..end).for_each(|page| self.insert(page as usize));
        }
    }

    /// The bitmap.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_as_a_set(limit in 1_usize..300, a: Vec<u16>, b: Vec<u16>) {
            let set = |v: &[u16]| v.iter().map(|n| *n as usize).filter(|n| *n < limit).collect::<BTreeSet<_>>();
            let pages = |v: &[u16]| { let mut p = Pages::none(limit); v.iter().for_each(|n| p.insert(*n as usize)); p };
            let (sa, sb) = (set(&a), set(&b));
            let list = |p: &Pages| p.iter().collect::<Vec<_>>();
            prop_assert_eq!(list(&pages(&a)), sa.iter().copied().collect::<Vec<_>>());
            let mut sum = pages(&a); sum.add(&pages(&b));
            prop_assert_eq!(list(&sum), sa.union(&sb).copied().collect::<Vec<_>>());
            let mut rest = pages(&a); rest.take_out(&pages(&b));
            prop_assert_eq!(list(&rest), sa.difference(&sb).copied().collect::<Vec<_>>());
            let mut both = pages(&a); both.keep(&pages(&b));
            prop_assert_eq!(list(&both), sa.intersection(&sb).copied().collect::<Vec<_>>());
            let mut runs = Pages::none(limit);
            runs.insert_runs(&pages(&a).runs().collect::<Vec<_>>());
            prop_assert_eq!(&runs, &pages(&a));
            let ends = pages(&a).runs().collect::<Vec<_>>();
            prop_assert!(ends.is_sorted_by(|x, y| x.0 + x.1 < y.0), "rows are as long as they can be");
            for from in [0, limit / 2, limit] {
                prop_assert_eq!(pages(&a).next_from(from), sa.range(from..).next().copied());
            }
            let mut fewer = pages(&a);
            for n in &sb { prop_assert_eq!(fewer.remove(*n), sa.contains(n)); }
            prop_assert_eq!(list(&fewer), sa.difference(&sb).copied().collect::<Vec<_>>());
            prop_assert_eq!(Pages::all(limit).len(), limit);
            prop_assert_eq!(pages(&a).len(), sa.len());
        }
    }
}
