//! Sets of pages.

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
            prop_assert_eq!(Pages::all(limit).len(), limit);
            prop_assert_eq!(pages(&a).len(), sa.len());
        }
    }
}
