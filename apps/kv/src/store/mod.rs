//! The data: databases of keys, values of five types, expiry.

pub mod chunked;
pub mod dict;
pub mod keyspace;
pub mod list;
pub mod sorted_set;
pub mod value;
pub mod watch;

pub use dict::Dict;
pub use keyspace::Keyspace;
pub use list::List;
pub use sorted_set::SortedSet;
pub use value::{Blob, Value, WrongType};

/// Number of databases.
pub const DATABASES: usize = 16;

/// All databases.
#[derive(Debug)]
pub struct Store {
    databases: Vec<Keyspace>,
}

impl Store {
    /// Empty databases.
    #[must_use]
    pub fn new() -> Self {
        Self { databases: (0..DATABASES).map(|_| Keyspace::new()).collect() }
    }

    /// Database `index`.
    ///
    /// # Panics
    /// If there are fewer; SELECT checks that.
    pub fn database(&mut self, index: usize) -> &mut Keyspace {
        &mut self.databases[index]
    }

    /// All, in order.
    pub fn databases(&mut self) -> impl Iterator<Item = &mut Keyspace> {
        self.databases.iter_mut()
    }

    /// The two databases for a key that is moved between them. `None` if they are the same.
    pub fn two(&mut self, from: usize, to: usize) -> Option<(&mut Keyspace, &mut Keyspace)> {
        self.databases.get_disjoint_mut([from, to]).ok().map(|[from, to]| (from, to))
    }

    /// Removes up to `limit` keys that have expired at `now`. Returns how many.
    pub fn expire_due(&mut self, now: u64, limit: usize) -> usize {
        let mut expired = 0;
        for database in &mut self.databases {
            expired += database.expire_due(now, limit - expired);
        }
        expired
    }

    /// When the next key expires.
    #[must_use]
    pub fn next_expiry(&self) -> Option<u64> {
        self.databases.iter().filter_map(Keyspace::next_expiry).min()
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}
