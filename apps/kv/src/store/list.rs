//! Lists: cheap at both ends, without large blocks of memory at any length.
//!
//! The elements are in nodes of bounded size. None is empty; those in the middle may be less than
//! full.

use super::value::Blob;
use std::collections::VecDeque;
use std::ops::Range;

/// Most elements in a node.
const NODE: usize = 128;

type Node = VecDeque<Blob>;

/// The list.
#[derive(Clone, Debug, Default)]
pub struct List {
    nodes: VecDeque<Node>,
    len: usize,
}

impl List {
    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an element before the first.
    pub fn push_front(&mut self, value: Blob) {
        match self.nodes.front_mut() {
            Some(node) if node.len() < NODE => node.push_front(value),
            _ => self.nodes.push_front(Node::from_iter([value])),
        }
        self.len += 1;
    }

    /// Adds an element after the last.
    pub fn push_back(&mut self, value: Blob) {
        match self.nodes.back_mut() {
            Some(node) if node.len() < NODE => node.push_back(value),
            _ => self.nodes.push_back(Node::from_iter([value])),
        }
        self.len += 1;
    }

    /// Removes the first element.
    pub fn pop_front(&mut self) -> Option<Blob> {
        let node = self.nodes.front_mut()?;
        let value = node.pop_front();
        if node.is_empty() {
            self.nodes.pop_front();
        }
        self.removed(1);
        value
    }

    /// Removes the last element.
    pub fn pop_back(&mut self) -> Option<Blob> {
        let node = self.nodes.back_mut()?;
        let value = node.pop_back();
        if node.is_empty() {
            self.nodes.pop_back();
        }
        self.removed(1);
        value
    }

    fn removed(&mut self, count: usize) {
        self.len -= count;
        if self.nodes.capacity() > 64 && self.nodes.len() < self.nodes.capacity() / 4 {
            self.nodes.shrink_to(self.nodes.capacity() / 2);
        }
    }

    /// The node that contains element `index`, and its position in it.
    fn locate(&self, mut index: usize) -> Option<(usize, usize)> {
        // Search from the nearer end: most lookups are near one of both.
        if index >= self.len {
            return None;
        }
        if index < self.len / 2 {
            for (n, node) in self.nodes.iter().enumerate() {
                if index < node.len() {
                    return Some((n, index));
                }
                index -= node.len();
            }
        }
        let mut after = self.len - index;
        for (n, node) in self.nodes.iter().enumerate().rev() {
            if after <= node.len() {
                return Some((n, node.len() - after));
            }
            after -= node.len();
        }
        None
    }

    /// Element `index`.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Blob> {
        self.locate(index).map(|(node, place)| &self.nodes[node][place])
    }

    /// Element `index`, to change.
    pub fn get_mut(&mut self, index: usize) -> Option<&mut Blob> {
        self.locate(index).map(|(node, place)| &mut self.nodes[node][place])
    }

    /// Inserts an element as element `index`, which is at most the length.
    pub fn insert(&mut self, index: usize, value: Blob) {
        let Some((n, place)) = self.locate(index) else {
            self.push_back(value);
            return;
        };
        let node = &mut self.nodes[n];
        node.insert(place, value);
        self.len += 1;
        if node.len() > NODE {
            let half = node.split_off(NODE / 2);
            self.nodes.insert(n + 1, half);
        }
    }

    /// Removes elements for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&Blob) -> bool) {
        self.nodes.iter_mut().for_each(|node| node.retain(&mut keep));
        self.nodes.retain(|node| !node.is_empty());
        let left: usize = self.nodes.iter().map(VecDeque::len).sum();
        self.removed(self.len - left);
    }

    /// Removes all elements outside of this range.
    pub fn keep(&mut self, range: Range<usize>) {
        while self.len > range.end {
            self.drop_from(false, self.len - range.end);
        }
        let mut before = range.start.min(self.len);
        while before > 0 {
            before -= self.drop_from(true, before);
        }
    }

    /// Removes up to `count` elements of the first or the last node. Returns how many.
    fn drop_from(&mut self, first: bool, count: usize) -> usize {
        let end = if first { self.nodes.front_mut() } else { self.nodes.back_mut() };
        let Some(node) = end else { return count };
        let gone = count.min(node.len());
        if gone == node.len() {
            if first {
                self.nodes.pop_front()
            } else {
                self.nodes.pop_back()
            };
        } else if first {
            node.drain(..gone);
        } else {
            node.truncate(node.len() - gone);
        }
        self.removed(gone);
        gone
    }

    /// All elements.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Blob> {
        self.nodes.iter().flatten()
    }

    /// The elements in this range.
    pub fn range(&self, range: Range<usize>) -> impl Iterator<Item = &Blob> {
        let (node, place) = self.locate(range.start).unwrap_or((self.nodes.len(), 0));
        self.nodes.range(node..).flatten().skip(place).take(range.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaves_as_a_deque_does() {
        let mut random = fastrand::Rng::with_seed(9);
        let (mut list, mut model) = (List::default(), VecDeque::<Blob>::new());
        for step in 0..60_000u32 {
            let value = Blob::from_slice(&(step % 50).to_le_bytes());
            let place = random.usize(..=model.len());
            // Mostly grows, then mostly shrinks.
            match random.u32(if step < 30_000 { 0..12 } else { 4..20 }) {
                0..=3 => {
                    list.push_back(value.clone());
                    model.push_back(value);
                }
                4..=6 => {
                    list.push_front(value.clone());
                    model.push_front(value);
                }
                7 | 8 => {
                    list.insert(place, value.clone());
                    model.insert(place, value);
                }
                9 => assert_eq!(list.get(place), model.get(place)),
                10..=13 => assert_eq!(list.pop_front(), model.pop_front()),
                14..=18 => assert_eq!(list.pop_back(), model.pop_back()),
                _ => {
                    list.retain(|v| *v != value);
                    model.retain(|v| *v != value);
                }
            }
            assert_eq!(list.len(), model.len());
            if step % 1000 == 0 {
                assert!(list.iter().eq(&model) && list.iter().rev().eq(model.iter().rev()));
                let end = random.usize(place.min(model.len())..=model.len());
                let start = place.min(end);
                assert!(list.range(start..end).eq(model.range(start..end)));
                assert!(list.nodes.iter().all(|node| (1..=NODE).contains(&node.len())));
            }
        }
    }

    #[test]
    fn keeps_the_middle() {
        for range in [0..0, 0..1000, 3..997, 0..1, 999..1000, 200..300, 500..500] {
            let mut list = List::default();
            (0..1000u32).for_each(|n| list.push_back(Blob::from_slice(&n.to_le_bytes())));
            list.keep(range.clone());
            assert_eq!(list.len(), range.len());
            assert!(
                list.iter().zip(range.clone()).all(|(v, n)| **v == (n as u32).to_le_bytes()),
                "{range:?}"
            );
        }
    }

    #[test]
    fn memory_follows_the_length() {
        let _ballast = vec![0u8; 1 << 20];
        let before = crate::memory::used();
        let mut list = List::default();
        (0..100_000).for_each(|_| list.push_back(Blob::new()));
        let full = crate::memory::used() - before;
        (0..99_990).for_each(|_| _ = list.pop_front());
        let left = crate::memory::used() - before;
        assert!(full < 3_000_000 && left < 10_000, "{full} bytes for 100000, {left} for 10");
    }
}
