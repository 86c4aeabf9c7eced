//! The table of descriptors: small numbers for what is open.

use crate::fs::Error;
use alloc::{rc::Rc, vec::Vec};

/// Most descriptors at a time.
pub const MOST: usize = 65_536;

/// Numbers for things of kind `T`; several may stand for the same one.
#[derive(Debug)]
pub struct Descriptors<T> {
    table: Vec<Option<Rc<T>>>,
    /// Below it, none is free.
    free_from: usize,
}

impl<T> Descriptors<T> {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { table: Vec::new(), free_from: 0 }
    }

    /// Gives `thing` the smallest number that is free, from `least` on.
    ///
    /// # Errors
    /// [`Error::TooManyFiles`].
    pub fn insert(&mut self, thing: Rc<T>, least: usize) -> Result<i32, Error> {
        let from = self.free_from.max(least);
        let fd = (from..).find(|&fd| self.table.get(fd).is_none_or(Option::is_none));
        let fd = fd.filter(|&fd| fd < MOST).ok_or(Error::TooManyFiles)?;
        if fd >= self.table.len() {
            let more = fd + 1 - self.table.len();
            self.table.try_reserve(more).map_err(|_| Error::TooManyFiles)?;
            self.table.resize_with(fd + 1, || None);
        }
        self.table[fd] = Some(thing);
        if least <= self.free_from {
            self.free_from = fd + 1;
        }
        Ok(fd as i32)
    }

    /// What the number stands for.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    pub fn get(&self, fd: i32) -> Result<&Rc<T>, Error> {
        let entry = usize::try_from(fd).ok().and_then(|fd| self.table.get(fd)?.as_ref());
        entry.ok_or(Error::BadDescriptor)
    }

    /// Frees the number.
    ///
    /// # Errors
    /// [`Error::BadDescriptor`].
    pub fn remove(&mut self, fd: i32) -> Result<Rc<T>, Error> {
        let n = usize::try_from(fd).map_err(|_| Error::BadDescriptor)?;
        let thing = self.table.get_mut(n).and_then(Option::take).ok_or(Error::BadDescriptor)?;
        self.free_from = self.free_from.min(n);
        Ok(thing)
    }
}

impl<T> Default for Descriptors<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    #[test]
    fn an_object_stays_until_its_last_descriptor_is_closed() {
        let mut table = Descriptors::new();
        let thing = Rc::new('x');
        assert_eq!(table.insert(Rc::clone(&thing), 0), Ok(0));
        assert_eq!(table.insert(Rc::clone(&thing), 0), Ok(1));
        assert_eq!(table.insert(Rc::clone(&thing), 10), Ok(10));
        assert_eq!(Rc::strong_count(&thing), 4);
        drop(table.remove(0));
        assert_eq!(table.get(0), Err(Error::BadDescriptor));
        assert_eq!(table.get(-1), Err(Error::BadDescriptor));
        assert_eq!(table.get(99), Err(Error::BadDescriptor));
        assert_eq!(table.remove(0), Err(Error::BadDescriptor));
        assert_eq!(table.get(1), Ok(&thing));
        assert_eq!(table.insert(thing, 0), Ok(0));
    }

    #[test]
    fn descriptors_run_out_and_come_back() {
        let mut table = Descriptors::new();
        let thing = Rc::new(());
        for fd in 0..MOST {
            assert_eq!(table.insert(Rc::clone(&thing), 0), Ok(fd as i32));
        }
        assert_eq!(table.insert(Rc::clone(&thing), 0), Err(Error::TooManyFiles));
        drop(table.remove(7));
        assert_eq!(table.insert(thing, 0), Ok(7));
    }

    proptest! {
        #[test]
        fn the_smallest_free_number_is_given(
            steps in proptest::collection::vec((any::<bool>(), 0_usize..12), 1..200)
        ) {
            let mut table = Descriptors::new();
            let mut model = BTreeMap::new();
            for (n, (insert, at)) in steps.into_iter().enumerate() {
                if insert {
                    let least = if at < 9 { 0 } else { at };
                    let expected = (least..).find(|fd| !model.contains_key(fd)).unwrap();
                    prop_assert_eq!(table.insert(Rc::new(n), least), Ok(expected as i32));
                    model.insert(expected, n);
                } else {
                    prop_assert_eq!(table.remove(at as i32).ok().map(|n| *n), model.remove(&at));
                }
            }
        }
    }
}
