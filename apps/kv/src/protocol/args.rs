//! The words of a request, as ranges of the buffer they arrived in.

use std::ops::Range;

/// A request: its words, not copied.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    buffer: &'a [u8],
    words: &'a [Range<usize>],
}

impl<'a> Args<'a> {
    /// The words at these ranges of `buffer`.
    #[must_use]
    pub fn new(buffer: &'a [u8], words: &'a [Range<usize>]) -> Self {
        Self { buffer, words }
    }

    /// Number of words, including the command's name.
    #[must_use]
    pub fn len(self) -> usize {
        self.words.len()
    }

    /// Whether there is not even a name.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.words.is_empty()
    }

    /// Word `index`; 0 is the command's name.
    ///
    /// # Panics
    /// If there are fewer words. The arity of a command guarantees a minimum.
    #[must_use]
    pub fn at(self, index: usize) -> &'a [u8] {
        &self.buffer[self.words[index].clone()]
    }

    /// Word `index`, if there is one.
    #[must_use]
    pub fn get(self, index: usize) -> Option<&'a [u8]> {
        self.words.get(index).map(|range| &self.buffer[range.clone()])
    }

    /// The words from `index` on.
    pub fn from(self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone {
        let buffer = self.buffer;
        self.words.get(index..).unwrap_or_default().iter().map(move |range| &buffer[range.clone()])
    }

    /// Whether word `index` exists and is `name`, in any case.
    #[must_use]
    pub fn is(self, index: usize, name: &str) -> bool {
        self.get(index).is_some_and(|word| word.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// A request that outlives the buffer it arrived in.
#[derive(Clone, Debug, Default)]
pub struct OwnedArgs {
    buffer: Vec<u8>,
    words: Vec<Range<usize>>,
}

impl OwnedArgs {
    /// The same words, borrowed.
    #[must_use]
    pub fn borrow(&self) -> Args<'_> {
        Args::new(&self.buffer, &self.words)
    }
}

impl From<Args<'_>> for OwnedArgs {
    fn from(args: Args<'_>) -> Self {
        args.from(0).collect()
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = T>>(words: I) -> Self {
        let mut owned = Self::default();
        for word in words {
            let start = owned.buffer.len();
            owned.buffer.extend_from_slice(word.as_ref());
            owned.words.push(start..owned.buffer.len());
        }
        owned
    }
}
