//! A vector in pieces: it grows without moving its elements, so that neither time nor memory jumps
//! when it gets large.

/// Elements of a full piece.
const CHUNK: usize = 1024;

/// The vector. Only its first piece grows; all others are made in full size.
#[derive(Debug)]
pub struct Chunked<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Chunked<T> {
    /// Empty, without memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Element `index`.
    ///
    /// # Panics
    /// If there are fewer.
    #[must_use]
    pub fn at(&self, index: usize) -> &T {
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    /// Element `index`, to change.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn at_mut(&mut self, index: usize) -> &mut T {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    /// Adds an element at the end. Returns its index.
    pub fn push(&mut self, value: T) -> usize {
        let index = self.len;
        if index / CHUNK == self.chunks.len() {
            self.chunks.push(if index == 0 { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        self.chunks[index / CHUNK].push(value);
        self.len += 1;
        index
    }

    /// Removes element `index`; the last replaces it.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn swap_remove(&mut self, index: usize) -> T {
        assert!(index < self.len, "no element {index} of {}", self.len);
        self.len -= 1;
        let last_chunk = self.len / CHUNK;
        let last = self.chunks[last_chunk].pop().expect("the last piece in use is not empty");
        // An empty piece is kept until the one before is half empty, so that a size that goes up
        // and down costs nothing.
        if self.len % CHUNK == CHUNK / 2 {
            self.chunks.truncate(last_chunk + 1);
        }
        if index == self.len { last } else { std::mem::replace(self.at_mut(index), last) }
    }

    /// All, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        (0..self.len).map(|index| self.at(index))
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_vector_does() {
        let (mut chunked, mut vector) = (Chunked::new(), Vec::new());
        let mut random = fastrand::Rng::with_seed(7);
        for n in 0..40_000u32 {
            // Grows for a while, then shrinks.
            if random.u32(0..100) < if n < 15_000 { 70 } else { 35 } || vector.is_empty() {
                assert_eq!(chunked.push(n), vector.len());
                vector.push(n);
            } else {
                let index = random.usize(..vector.len());
                assert_eq!(chunked.swap_remove(index), vector.swap_remove(index));
            }
        }
        assert_eq!(chunked.len(), vector.len());
        assert!(chunked.iter().eq(&vector));
    }

    #[test]
    fn pieces_are_freed() {
        let mut chunked = Chunked::new();
        (0..10 * CHUNK).for_each(|n| _ = chunked.push(n));
        while chunked.len() > 10 {
            chunked.swap_remove(0);
        }
        assert!(chunked.chunks.len() <= 2);
    }
}
