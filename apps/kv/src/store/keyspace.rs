//! One database: keys with their values and the times at which they expire.
//!
//! An expired key does not exist: a lookup removes it, and in the background keys are removed in
//! the order in which they expire, without searching. Every change of a key is reported to its
//! watchers.

use super::dict::Dict;
use super::value::{Blob, Kind, Value, WrongType};
use super::watch::Watched;
use std::collections::BTreeSet;

/// The value for keys that do not expire.
const NEVER: u64 = u64::MAX;

#[derive(Debug)]
struct Object {
    value: Value,
    /// Milliseconds of Unix time.
    expires: u64,
}

/// The database. Times are milliseconds of Unix time.
#[derive(Debug, Default)]
pub struct Keyspace {
    dict: Dict<Object>,
    /// Expiry times, each with its entry.
    deadlines: BTreeSet<(u64, u32)>,
    watched: Watched,
    expired: u64,
}

impl Keyspace {
    /// Empty.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of keys, including expired ones that have not been removed yet, as in Redis.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dict.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dict.is_empty()
    }

    /// Number of keys that will expire.
    #[must_use]
    pub fn expiring(&self) -> usize {
        self.deadlines.len()
    }

    /// Number of keys that have expired so far.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// The index of `key`, if it exists.
    pub fn find(&mut self, key: &[u8], now: u64) -> Option<usize> {
        let index = self.dict.find(key)?;
        if self.dict.at(index).value.expires > now {
            return Some(index);
        }
        self.remove_at(index);
        self.expired += 1;
        None
    }

    /// The value of `key`.
    pub fn get(&mut self, key: &[u8], now: u64) -> Option<&Value> {
        self.find(key, now).map(|index| &self.dict.at(index).value.value)
    }

    /// The value of `key`, if it is of this type.
    ///
    /// # Errors
    /// It is of another type.
    pub fn get_as<T: Kind>(&mut self, key: &[u8], now: u64) -> Result<Option<&T>, WrongType> {
        self.get(key, now).map(T::of).transpose()
    }

    /// Changes the value of `key`, if it exists. Removes the key if the value is empty afterwards.
    ///
    /// # Errors
    /// It is of another type.
    pub fn change<T: Kind, R>(
        &mut self,
        key: &[u8],
        now: u64,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<Option<R>, WrongType> {
        let Some(index) = self.find(key, now) else { return Ok(None) };
        let value = T::of_mut(&mut self.dict.value_mut(index).value)?;
        let result = change(value);
        let gone = value.is_gone();
        self.touch(key);
        if gone {
            self.remove_at(index);
        }
        Ok(Some(result))
    }

    /// Changes the value of `key`; creates it, empty, if it does not exist. Removes the key if the
    /// value is empty afterwards.
    ///
    /// # Errors
    /// It is of another type.
    pub fn change_or_create<T: Kind, R>(
        &mut self,
        key: &[u8],
        now: u64,
        change: impl FnOnce(&mut T) -> R,
    ) -> Result<R, WrongType> {
        let index = match self.find(key, now) {
            Some(index) => index,
            None => self.dict.insert_new(key, Object { value: T::empty(), expires: NEVER }),
        };
        let value = T::of_mut(&mut self.dict.value_mut(index).value)?;
        let result = change(value);
        let gone = value.is_gone();
        self.touch(key);
        if gone {
            self.remove_at(index);
        }
        Ok(result)
    }

    /// Sets `key`, without an expiry.
    pub fn set(&mut self, key: &[u8], value: Value) {
        match self.dict.find(key) {
            Some(index) => {
                self.expire_entry(index, NEVER);
                self.dict.value_mut(index).value = value;
            }
            None => {
                self.dict.insert_new(key, Object { value, expires: NEVER });
            }
        }
        self.touch(key);
    }

    /// Sets `key` to a string, replacing the old value if there is one, without an expiry.
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8]) {
        if let Some(index) = self.dict.find(key) {
            self.expire_entry(index, NEVER);
            if let Value::String(old) = &mut self.dict.value_mut(index).value {
                if old.spilled() && old.capacity() / 2 > bytes.len() {
                    *old = Blob::from_slice(bytes);
                } else {
                    old.clear();
                    old.reserve_exact(bytes.len());
                    old.extend_from_slice(bytes);
                }
                self.touch(key);
                return;
            }
        }
        self.set(key, Value::String(Blob::from_slice(bytes)));
    }

    /// Removes `key`. Returns its value and when it would have expired.
    pub fn remove(&mut self, key: &[u8], now: u64) -> Option<(Value, Option<u64>)> {
        let index = self.find(key, now)?;
        let expires = self.expires_at(index);
        Some((self.remove_at(index), expires))
    }

    /// When entry `index` expires.
    #[must_use]
    pub fn expires_at(&self, index: usize) -> Option<u64> {
        Some(self.dict.at(index).value.expires).filter(|&when| when != NEVER)
    }

    /// Sets when the existing `key` expires; `None` for never.
    pub fn expire(&mut self, key: &[u8], when: Option<u64>) {
        if let Some(index) = self.dict.find(key) {
            self.expire_entry(index, when.unwrap_or(NEVER));
            self.touch(key);
        }
    }

    fn expire_entry(&mut self, index: usize, when: u64) {
        let object = self.dict.value_mut(index);
        let before = std::mem::replace(&mut object.expires, when);
        if before != NEVER {
            self.deadlines.remove(&(before, index as u32));
        }
        if when != NEVER {
            self.deadlines.insert((when, index as u32));
        }
    }

    fn remove_at(&mut self, index: usize) -> Value {
        self.expire_entry(index, NEVER);
        let last = self.dict.len() - 1;
        let last_expires = self.dict.at(last).value.expires;
        if last != index && last_expires != NEVER {
            self.deadlines.remove(&(last_expires, last as u32));
            self.deadlines.insert((last_expires, index as u32));
        }
        let entry = self.dict.remove_at(index);
        self.touch(&entry.key);
        entry.value.value
    }

    /// Removes up to `limit` expired keys. Returns how many.
    pub fn expire_due(&mut self, now: u64, limit: usize) -> usize {
        let mut count = 0;
        while count < limit {
            match self.deadlines.first() {
                Some(&(when, index)) if when <= now => drop(self.remove_at(index as usize)),
                _ => break,
            }
            count += 1;
        }
        self.expired += count as u64;
        count
    }

    /// When the next key expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.deadlines.first().map(|&(when, _)| when)
    }

    /// Removes all.
    pub fn clear(&mut self) {
        let dict = std::mem::take(&mut self.dict);
        self.deadlines.clear();
        self.watched.touch_all(|key| dict.contains(key));
    }

    /// Exchanges the contents with another database.
    pub fn swap(&mut self, other: &mut Self) {
        std::mem::swap(&mut self.dict, &mut other.dict);
        std::mem::swap(&mut self.deadlines, &mut other.deadlines);
        self.watched.touch_all(|key| self.dict.contains(key) || other.dict.contains(key));
        other.watched.touch_all(|key| self.dict.contains(key) || other.dict.contains(key));
    }

    /// The existing keys, and their values.
    pub fn iter(&self, now: u64) -> impl Iterator<Item = (&[u8], &Value)> {
        self.dict.iter().filter(move |e| e.value.expires > now).map(|e| (&*e.key, &e.value.value))
    }

    /// Visits about `count` keys; see [`Dict::scan`].
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        now: u64,
        mut visit: impl FnMut(&[u8], &Value),
    ) -> u64 {
        self.dict.scan(cursor, count, |entry| {
            if entry.value.expires > now {
                visit(&entry.key, &entry.value.value);
            }
        })
    }

    /// A random key.
    pub fn random(&mut self, now: u64) -> Option<&[u8]> {
        // Expired keys are removed on the way, so that this ends.
        loop {
            let index = self.dict.random()?;
            if self.dict.at(index).value.expires > now {
                return Some(&self.dict.at(index).key);
            }
            self.remove_at(index);
            self.expired += 1;
        }
    }

    fn touch(&mut self, key: &[u8]) {
        if !self.watched.is_empty() {
            self.watched.touch(key);
        }
    }

    /// The watched keys.
    pub fn watched(&mut self) -> &mut Watched {
        &mut self.watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn string(text: &str) -> Value {
        Value::String(Blob::from_slice(text.as_bytes()))
    }

    #[test]
    fn expired_keys_are_gone_at_their_time() {
        let mut db = Keyspace::new();
        db.set(b"a", string("1"));
        db.expire(b"a", Some(100));
        assert!(db.find(b"a", 99).is_some());
        assert!(db.find(b"a", 100).is_none());
        assert_eq!((db.len(), db.expired(), db.expiring()), (0, 1, 0));
    }

    #[test]
    fn a_set_ends_the_expiry_and_a_change_does_not() {
        let mut db = Keyspace::new();
        db.set_string(b"a", b"1");
        db.expire(b"a", Some(100));
        db.change::<Blob, _>(b"a", 0, |s| s.push(b'2')).unwrap();
        assert_eq!(db.next_expiry(), Some(100));
        db.set_string(b"a", b"3");
        assert_eq!(db.next_expiry(), None);
        assert!(db.find(b"a", 200).is_some());
    }

    #[test]
    fn the_deadlines_follow_their_keys_wherever_they_move() {
        let mut random = fastrand::Rng::with_seed(3);
        let (mut db, mut model) = (Keyspace::new(), BTreeMap::<Vec<u8>, Option<u64>>::new());
        for now in 0..30_000u64 {
            let key = format!("k{}", random.u32(..400)).into_bytes();
            match random.u32(..5) {
                0 | 1 => {
                    db.set_string(&key, b"x");
                    model.insert(key, None);
                }
                2 => {
                    let when = now + random.u64(1..500);
                    if model.get(&key).is_some_and(|w| w.is_none_or(|w| w > now)) {
                        model.insert(key.clone(), Some(when));
                    }
                    if db.find(&key, now).is_some() {
                        db.expire(&key, Some(when));
                    }
                }
                3 => {
                    let there = model.remove(&key).is_some_and(|w| w.is_none_or(|w| w > now));
                    assert_eq!(db.remove(&key, now).is_some(), there);
                }
                _ => {
                    db.expire_due(now, 3);
                    let first = model.values().flatten().filter(|&&w| w > now).min();
                    assert!(
                        db.next_expiry().is_none_or(|next| next <= now || Some(&next) == first)
                    );
                }
            }
        }
        let now = 30_000;
        while db.expire_due(now, 1) > 0 {}
        model.retain(|_, when| when.is_none_or(|w| w > now));
        let mut keys: Vec<_> = db.iter(now).map(|(key, _)| key.to_vec()).collect();
        keys.sort();
        assert!(keys.iter().eq(model.keys()));
        assert_eq!(db.expiring(), model.values().flatten().count());
    }

    #[test]
    fn empty_collections_are_removed_and_watchers_see_it() {
        let mut db = Keyspace::new();
        let seen = db.watched().watch(b"l");
        db.change_or_create::<super::super::List, _>(b"l", 0, |l| l.push_back(Blob::new()))
            .unwrap();
        let after = db.watched().changed(b"l");
        assert_ne!(after, seen);
        db.change::<super::super::List, _>(b"l", 0, |l| l.pop_back()).unwrap();
        assert!(db.is_empty());
        assert_ne!(db.watched().changed(b"l"), after);
        assert_eq!(db.change::<Blob, _>(b"l", 0, |_| ()), Ok(None));
    }
}
