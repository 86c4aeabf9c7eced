//! A set of pages, as a bitmap.

/// A set of page numbers below a fixed limit. Bit `n % 64` of word `n / 64` stands for page `n`, which is how KVM's dirty log has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageSet {
    words: Vec<u64>,
    pages: usize,
}

impl PageSet {
    /// The empty set of pages below `pages`.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        Self { words: vec![0; pages.div_ceil(64)], pages }
    }

    /// The set of all pages below `pages`.
    #[must_use]
    pub fn full(pages: usize) -> Self {
        let mut set = Self { words: vec![u64::MAX; pages.div_ceil(64)], pages };
        set.trim();
        set
    }

    /// A set from its words; bits past `pages` are dropped, words that are missing count as zero.
    #[must_use]
    pub fn from_words(mut words: Vec<u64>, pages: usize) -> Self {
        words.resize(pages.div_ceil(64), 0);
        let mut set = Self { words, pages };
        set.trim();
        set
    }

    fn trim(&mut self) {
        if let (rest @ 1.., Some(last)) = (self.pages % 64, self.words.last_mut()) {
            *last &= (1 << rest) - 1;
        }
    }

    /// The limit below which page numbers lie.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// How many pages are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// Whether no page is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|&w| w == 0)
    }

    /// Whether `page` is in the set.
    #[must_use]
    pub fn contains(&self, page: usize) -> bool {
        self.words.get(page / 64).is_some_and(|w| w >> (page % 64) & 1 == 1)
    }

    /// Adds `page`; one at or past the limit is no page of this guest and is left out.
    pub fn insert(&mut self, page: usize) {
        if page < self.pages {
            self.words[page / 64] |= 1 << (page % 64);
        }
    }

    /// Takes `page` out.
    pub fn remove(&mut self, page: usize) {
        if page < self.pages {
            self.words[page / 64] &= !(1 << (page % 64));
        }
    }

    /// Adds every page of `other`, which has the same limit.
    pub fn union_with(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a |= b);
    }

    /// Takes out every page of `other`.
    pub fn subtract(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(a, b)| *a &= !b);
    }

    /// The pages, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    i * 64 + bit
                })
            })
        })
    }

    /// The bitmap.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The bitmap, to be filled. Bits past the limit must stay clear.
    pub(crate) fn words_mut(&mut self) -> &mut [u64] {
        &mut self.words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_past_the_limit_never_show() {
        assert_eq!(PageSet::full(70).len(), 70);
        assert_eq!(PageSet::from_words(vec![u64::MAX; 9], 70), PageSet::full(70));
        let mut set = PageSet::new(70);
        set.insert(70);
        set.insert(69);
        assert_eq!(set.iter().collect::<Vec<_>>(), [69]);
        assert!(!set.contains(70) && !set.contains(100_000));
    }

    #[test]
    fn sets_add_and_subtract() {
        let mut a = PageSet::new(200);
        [0, 63, 64, 199].iter().for_each(|&p| a.insert(p));
        let mut b = PageSet::new(200);
        [63, 100].iter().for_each(|&p| b.insert(p));
        let mut sum = a.clone();
        sum.union_with(&b);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [0, 63, 64, 100, 199]);
        sum.subtract(&a);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [100]);
    }
}
