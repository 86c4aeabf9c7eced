//! What is removed from a journal, and in which order.
//!
//! First what registers a snapshot, so that it does not count; then the snapshot; then the segments
//! before the oldest snapshot that is left, oldest first. Each step is durable before the next, so
//! whenever it is interrupted the log reaches from the oldest snapshot to its end.

use super::files;
use crate::{
    Error,
    format::names::{self, Name},
    reader::Snapshot,
    storage::Directory,
};
use std::time::Duration;

/// How much of the past is kept. The newest snapshot always is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keep {
    /// This many snapshots, at least one.
    Snapshots(usize),
    /// All that is needed to go back to any moment of this last while.
    For(Duration),
    /// As many snapshots as fit, with the log from the oldest of them on, into this many bytes.
    Bytes(u64),
}

/// What was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Pruned {
    /// Snapshots.
    pub snapshots: usize,
    /// Segments of the log.
    pub segments: usize,
    /// Their size together, in bytes.
    pub bytes: u64,
}

/// Removes what is not to be kept, given the registered snapshots, oldest first.
pub fn prune(
    dir: &dyn Directory,
    snapshots: &[Snapshot],
    keep: Keep,
    now_ns: u64,
) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    let segments = segments(dir)?;
    let gone = snapshots.len() - kept(snapshots, &segments, keep, now_ns);
    let (gone, left) = snapshots.split_at(gone);
    for snapshot in gone {
        files::remove(dir, &names::resume(snapshot.position))?;
    }
    if !gone.is_empty() {
        files::sync(dir)?;
    }
    for snapshot in gone {
        files::remove(dir, &names::snapshot(snapshot.position))?;
        pruned.snapshots += 1;
        pruned.bytes += snapshot.size;
    }
    let Some(oldest) = left.first() else { return Ok(pruned) };
    for segment in &segments[..not_needed(&segments, oldest.position)] {
        files::remove(dir, &names::segment(segment.first))?;
        files::sync(dir)?;
        pruned.segments += 1;
        pruned.bytes += segment.size;
    }
    Ok(pruned)
}

/// A segment: its first position, and its size in bytes.
struct Segment {
    first: u64,
    size: u64,
}

/// All segments, oldest first.
fn segments(dir: &dyn Directory) -> Result<Vec<Segment>, Error> {
    let here = dir.path("").display().to_string();
    let names = dir.list().map_err(Error::io("list", here))?;
    let mut segments = Vec::new();
    for name in names {
        let Name::Segment(first) = Name::of(&name) else { continue };
        let path = dir.path(&name).display().to_string();
        let size = dir.open(&name).and_then(|file| file.size());
        segments.push(Segment { first, size: size.map_err(Error::io("read", path))? });
    }
    segments.sort_unstable_by_key(|segment| segment.first);
    Ok(segments)
}

/// How many segments, from the oldest, have no record behind `position`. Never the last one.
fn not_needed(segments: &[Segment], position: u64) -> usize {
    segments.windows(2).take_while(|pair| pair[1].first - 1 <= position).count()
}

/// How many snapshots, from the newest, are kept.
fn kept(snapshots: &[Snapshot], segments: &[Segment], keep: Keep, now_ns: u64) -> usize {
    let count = match keep {
        Keep::Snapshots(count) => count,
        Keep::For(time) => {
            let from = now_ns.saturating_sub(time.as_nanos().try_into().unwrap_or(u64::MAX));
            // The newest of those before that moment is needed to get to it.
            let young = snapshots.iter().rev().take_while(|s| s.taken_ns > from).count();
            young + 1
        }
        Keep::Bytes(most) => {
            let fits = |from: usize| {
                let log = &segments[not_needed(segments, snapshots[from].position)..];
                let log: u64 = log.iter().map(|segment| segment.size).sum();
                let files: u64 = snapshots[from..].iter().map(|snapshot| snapshot.size).sum();
                log.saturating_add(files) <= most
            };
            (0..snapshots.len()).rev().take_while(|from| fits(*from)).count()
        }
    };
    count.max(1).min(snapshots.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(at: &[(u64, u64)]) -> Vec<Snapshot> {
        let snapshot = |&(position, taken_ns): &(u64, u64)| Snapshot {
            position,
            path: String::new().into(),
            size: 100,
            taken_ns,
            resume: Vec::new(),
        };
        at.iter().map(snapshot).collect()
    }

    #[test]
    fn the_newest_snapshot_is_kept_and_what_the_rule_asks_for() {
        let three = snapshots(&[(0, 1_000), (10, 2_000), (20, 3_000)]);
        let segments = [1, 8, 15, 22].map(|first| Segment { first, size: 50 });
        let kept = |keep| kept(&three, &segments, keep, 4_000);
        let ns = |n| Keep::For(Duration::from_nanos(n));
        assert_eq!([0, 1, 2, 9].map(|n| kept(Keep::Snapshots(n))), [1, 1, 2, 3]);
        assert_eq!([0, 1_000, 1_001, 2_000, 2_001].map(|n| kept(ns(n))), [1, 1, 2, 2, 3]);
        // The newest needs two segments, two need three, and all of them four.
        assert_eq!([0, 200, 349, 350, 499, 500].map(|n| kept(Keep::Bytes(n))), [1, 1, 1, 2, 2, 3]);
        assert_eq!(super::kept(&[], &segments, Keep::Snapshots(2), 0), 0);
    }

    #[test]
    fn segments_with_a_record_behind_the_oldest_snapshot_are_needed() {
        let segments = [1, 8, 15].map(|first| Segment { first, size: 50 });
        let at = |position| not_needed(&segments, position);
        assert_eq!([0, 6, 7, 13, 14, 99].map(at), [0, 0, 1, 1, 2, 2]);
    }
}
