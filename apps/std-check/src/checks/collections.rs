//! Collections, and the randomness of their hashes.

use crate::check::Outcome;
use crate::{checks, ensure, ensure_eq};
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

checks!["collections": hash_map, hashes_differ_between_maps, hash_keys_are_random, ordered, queues];

fn hash_map() -> Outcome {
    let mut map = HashMap::new();
    for n in 0..50_000u64 {
        map.insert(n, n * n);
    }
    for n in (0..50_000).step_by(3) {
        ensure_eq!(map.remove(&n), Some(n * n));
    }
    ensure_eq!(map.len(), 33_333);
    ensure!(map.iter().all(|(k, v)| k * k == *v && k % 3 != 0), "a wrong entry");
    Ok(())
}

fn hashes_differ_between_maps() -> Outcome {
    let hashes: HashSet<u64> = (0..100).map(|_| RandomState::new().hash_one(7u64)).collect();
    ensure!(hashes.len() == 100, "of 100 hash states only {} differ", hashes.len());
    Ok(())
}

fn hash_keys_are_random() -> Outcome {
    // Each thread gets its own keys from the system: half of the bits should be set, in all
    // positions.
    let mut ones = 0;
    let mut seen = HashSet::new();
    for _ in 0..64 {
        let handle = std::thread::spawn(|| RandomState::new().hash_one(()));
        let hash = crate::check::join(handle)?;
        ones += hash.count_ones();
        seen.insert(hash);
    }
    ensure_eq!(seen.len(), 64);
    ensure!((1700..2400).contains(&ones), "{ones} of 4096 bits are set");
    Ok(())
}

fn ordered() -> Outcome {
    let map: BTreeMap<u32, u32> =
        (0..10_000u32).map(|n| (n.wrapping_mul(2_654_435_761), n)).collect();
    ensure_eq!(map.len(), 10_000);
    ensure!(map.keys().is_sorted(), "a BTreeMap is not in order");
    ensure_eq!(map.range(..1_000_000_000).count() + map.range(1_000_000_000..).count(), 10_000);
    Ok(())
}

fn queues() -> Outcome {
    let mut heap: BinaryHeap<u32> = (0..1000).map(|n| n * 7919 % 1000).collect();
    let mut last = u32::MAX;
    while let Some(top) = heap.pop() {
        ensure!(top <= last, "the heap gave {top} after {last}");
        last = top;
    }
    let mut queue = VecDeque::new();
    for n in 0..10_000 {
        queue.push_back(n);
        if n % 3 == 0 {
            ensure_eq!(queue.pop_front(), Some(n / 3));
        }
    }
    Ok(())
}
