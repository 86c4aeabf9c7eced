//! Sorted sets: members with scores, in the order of score and then of bytes.
//!
//! The order is kept in pieces of bounded size, so that a position is found by their sizes and
//! first elements, and a change moves little.

use super::dict::Dict;
use super::value::Blob;
use std::cmp::Ordering;
use std::ops::Range;

/// A piece larger than this is cut in two.
const PIECE: usize = 256;

/// The set.
#[derive(Debug, Default)]
pub struct SortedSet {
    scores: Dict<f64>,
    pieces: Vec<Vec<(f64, Blob)>>,
}

fn compare(a: (f64, &[u8]), b: (f64, &[u8])) -> Ordering {
    // Scores are never NaN, and -0 equals 0 here as it does in Redis.
    a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal).then_with(|| a.1.cmp(b.1))
}

impl SortedSet {
    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    /// The score of `member`.
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Sets the score of `member`. Returns the old one, if it existed.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let old = self.scores.insert(member, score);
        if let Some(old) = old {
            if old == score {
                return Some(old);
            }
            self.take(old, member);
        }
        let (piece, place) = self.place(score, member);
        match self.pieces.get_mut(piece) {
            None => self.pieces.push(vec![(score, Blob::from_slice(member))]),
            Some(elements) => {
                elements.insert(place, (score, Blob::from_slice(member)));
                if elements.len() > PIECE {
                    let half = elements.split_off(PIECE / 2);
                    self.pieces.insert(piece + 1, half);
                }
            }
        }
        old
    }

    /// Removes `member`. Returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        self.take(score, member);
        Some(score)
    }

    /// Removes the element at `rank`.
    pub fn remove_rank(&mut self, rank: usize) -> Option<(f64, Blob)> {
        let (piece, place) = self.locate(rank)?;
        let element = self.take_at(piece, place);
        self.scores.remove(&element.1);
        Some(element)
    }

    fn take(&mut self, score: f64, member: &[u8]) {
        let (piece, place) = self.place(score, member);
        self.take_at(piece, place);
    }

    fn take_at(&mut self, piece: usize, place: usize) -> (f64, Blob) {
        let element = self.pieces[piece].remove(place);
        if self.pieces[piece].is_empty() {
            self.pieces.remove(piece);
        }
        element
    }

    /// The position of the element, or where to insert it: the piece, and the index in it.
    fn place(&self, score: f64, member: &[u8]) -> (usize, usize) {
        let before = |e: &(f64, Blob)| compare((e.0, &e.1), (score, member)) == Ordering::Less;
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(before));
        if piece == self.pieces.len() && piece > 0 {
            return (piece - 1, self.pieces[piece - 1].len());
        }
        (piece, self.pieces.get(piece).map_or(0, |elements| elements.partition_point(before)))
    }

    fn locate(&self, mut rank: usize) -> Option<(usize, usize)> {
        for (piece, elements) in self.pieces.iter().enumerate() {
            if rank < elements.len() {
                return Some((piece, rank));
            }
            rank -= elements.len();
        }
        None
    }

    fn rank_of_place(&self, (piece, place): (usize, usize)) -> usize {
        self.pieces[..piece].iter().map(Vec::len).sum::<usize>() + place
    }

    /// Number of elements before `member`.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(self.rank_of_place(self.place(score, member)))
    }

    /// Number of elements with a score below `score`, or up to it if `inclusive`.
    #[must_use]
    pub fn count_below(&self, score: f64, inclusive: bool) -> usize {
        let below = |e: &(f64, Blob)| e.0 < score || (inclusive && e.0 == score);
        let piece = self.pieces.partition_point(|piece| piece.last().is_some_and(below));
        let place = self.pieces.get(piece).map_or(0, |elements| elements.partition_point(below));
        self.rank_of_place((piece, place))
    }

    /// The elements with these ranks, in order.
    pub fn range(&self, ranks: Range<usize>) -> impl DoubleEndedIterator<Item = (f64, &[u8])> {
        let start = self.locate(ranks.start).unwrap_or((self.pieces.len(), 0));
        let end = self.locate(ranks.end).unwrap_or((self.pieces.len(), 0));
        let last = if end.1 > 0 { end.0 + 1 } else { end.0 };
        (start.0..last.max(start.0)).flat_map(move |piece| {
            let elements = &self.pieces[piece];
            let from = if piece == start.0 { start.1 } else { 0 };
            let to = if piece == end.0 { end.1 } else { elements.len() };
            elements[from..to.max(from)].iter().map(|(score, member)| (*score, &**member))
        })
    }

    /// All elements, in order.
    pub fn iter(&self) -> impl Iterator<Item = (f64, &[u8])> {
        self.pieces.iter().flatten().map(|(score, member)| (*score, &**member))
    }

    /// Visits about `count` members; see [`Dict::scan`].
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(f64, &[u8])) -> u64 {
        self.scores.scan(cursor, count, |entry| visit(entry.value, &entry.key))
    }

    /// A random member.
    #[must_use]
    pub fn random(&self) -> Option<(f64, &[u8])> {
        self.scores.random().map(|index| (self.scores.at(index).value, &*self.scores.at(index).key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_order_of_a_sorted_vector() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut set, mut model) = (SortedSet::default(), Vec::<(i32, Vec<u8>)>::new());
        for step in 0..20_000 {
            let member = format!("m{}", random.u32(..3000)).into_bytes();
            let at = model.iter().position(|(_, m)| *m == member);
            if random.u32(..10) < if step < 12_000 { 8 } else { 2 } {
                let score = random.i32(-50..50);
                let old = at.map(|at| model.swap_remove(at).0);
                model.push((score, member.clone()));
                assert_eq!(set.insert(&member, f64::from(score)), old.map(f64::from));
            } else {
                let old = at.map(|at| model.swap_remove(at).0);
                assert_eq!(set.remove(&member), old.map(f64::from));
            }
            if step % 500 == 0 {
                let mut sorted = model.clone();
                sorted.sort();
                let want: Vec<_> = sorted.iter().map(|(s, m)| (f64::from(*s), &**m)).collect();
                assert_eq!(set.iter().collect::<Vec<_>>(), want);
                for rank in (0..want.len()).step_by(97) {
                    assert_eq!(set.rank(want[rank].1), Some(rank));
                    let end = (rank + 300).min(want.len());
                    assert_eq!(set.range(rank..end).collect::<Vec<_>>(), want[rank..end]);
                    assert!(set.range(rank..end).rev().eq(want[rank..end].iter().rev().copied()));
                    let score = want[rank].0;
                    assert_eq!(
                        set.count_below(score, false),
                        want.iter().filter(|e| e.0 < score).count()
                    );
                    assert_eq!(
                        set.count_below(score, true),
                        want.iter().filter(|e| e.0 <= score).count()
                    );
                }
            }
        }
        while let Some((score, member)) = set.remove_rank(0) {
            assert!(set.iter().all(|e| compare(e, (score, &member)) == Ordering::Greater));
        }
        assert!(set.is_empty() && set.pieces.is_empty());
    }

    #[test]
    fn empty_ranges_are_empty() {
        let mut set = SortedSet::default();
        assert_eq!(set.range(0..0).count(), 0);
        set.insert(b"a", 1.0);
        assert_eq!(set.range(1..1).count() + set.range(0..0).count(), 0);
        assert_eq!(set.range(0..1).count(), 1);
    }
}
