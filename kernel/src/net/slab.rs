//! A table whose entries keep their number until they are removed, and whose numbers are used
//! again.

use alloc::vec::Vec;

/// See the module.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slab<T> {
    /// An empty table.
    pub const fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// Adds an entry; its number.
    pub fn insert(&mut self, value: T) -> u32 {
        if let Some(n) = self.free.pop() {
            self.entries[n as usize] = Some(value);
            return n;
        }
        self.entries.push(Some(value));
        (self.entries.len() - 1) as u32
    }

    /// Takes an entry out.
    pub fn remove(&mut self, n: u32) -> Option<T> {
        let value = self.entries.get_mut(n as usize)?.take()?;
        self.free.push(n);
        Some(value)
    }

    /// The entry of that number.
    pub fn get(&self, n: u32) -> Option<&T> {
        self.entries.get(n as usize)?.as_ref()
    }

    /// The entry of that number.
    pub fn get_mut(&mut self, n: u32) -> Option<&mut T> {
        self.entries.get_mut(n as usize)?.as_mut()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// All entries, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.entries.iter().enumerate().filter_map(|(n, e)| Some((n as u32, e.as_ref()?)))
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_number_and_numbers_are_reused() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get(b), Some(&'b'));
        assert_eq!(slab.insert('c'), a);
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.get(99), None);
        assert_eq!(slab.iter().map(|(_, &c)| c).collect::<Vec<_>>(), ['c', 'b']);
    }
}
