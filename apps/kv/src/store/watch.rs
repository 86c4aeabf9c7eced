//! Keys watched with WATCH, and whether they have changed since.

use super::dict::Dict;

/// The watched keys of a database. Usually empty, which costs a write one comparison.
#[derive(Debug, Default)]
pub struct Watched {
    keys: Dict<Watch>,
    /// Counts changes; no two changes have the same number.
    changes: u64,
}

#[derive(Debug)]
struct Watch {
    watchers: usize,
    changed: u64,
}

impl Watched {
    /// Begins to watch `key`. Returns the value of [`changed`](Self::changed) until it changes.
    pub fn watch(&mut self, key: &[u8]) -> u64 {
        match self.keys.find(key) {
            Some(index) => {
                let watch = self.keys.value_mut(index);
                watch.watchers += 1;
                watch.changed
            }
            None => {
                self.keys.insert_new(key, Watch { watchers: 1, changed: 0 });
                0
            }
        }
    }

    /// The number of the last change of `key`, which is being watched.
    #[must_use]
    pub fn changed(&self, key: &[u8]) -> u64 {
        self.keys.get(key).map_or(0, |watch| watch.changed)
    }

    /// One watcher of `key` stops watching it.
    pub fn unwatch(&mut self, key: &[u8]) {
        if let Some(index) = self.keys.find(key) {
            let watch = self.keys.value_mut(index);
            watch.watchers -= 1;
            if watch.watchers == 0 {
                self.keys.remove_at(index);
            }
        }
    }

    /// Whether no key is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Records a change of `key`.
    pub fn touch(&mut self, key: &[u8]) {
        self.changes += 1;
        if let Some(index) = self.keys.find(key) {
            self.keys.value_mut(index).changed = self.changes;
        }
    }

    /// Records a change of every watched key for which `is_there` holds.
    pub fn touch_all(&mut self, is_there: impl Fn(&[u8]) -> bool) {
        self.changes += 1;
        for index in 0..self.keys.len() {
            if is_there(&self.keys.at(index).key) {
                self.keys.value_mut(index).changed = self.changes;
            }
        }
    }
}
