//! Following a path through the tree.

use super::{Error, Ino, ROOT, Tree};

const NAME_MAX: usize = 255;

/// Where a path leads.
pub(super) struct Found<'a> {
    /// The directory it is in.
    pub parent: Ino,
    /// Its name there; `None` for the root, and for `.` and `..`.
    pub name: Option<&'a [u8]>,
    /// It, if it exists.
    pub ino: Option<Ino>,
    /// It must be a directory: a slash follows.
    pub directory: bool,
}

impl Tree {
    /// Follows `path`.
    pub(super) fn find<'a>(&self, path: &'a [u8]) -> Result<Found<'a>, Error> {
        if path.is_empty() {
            return Err(Error::NotFound);
        }
        let directory = path.ends_with(b"/") || path.ends_with(b"/.") || path == b".";
        let mut at = Found { parent: ROOT, name: None, ino: Some(ROOT), directory };
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            if name.len() > NAME_MAX {
                return Err(Error::NameTooLong);
            }
            let here = at.ino.ok_or(Error::NotFound)?;
            let (entries, parent) = self.entries(here)?;
            at = match name {
                b"." => Found { parent, name: None, ino: Some(here), directory },
                b".." => {
                    let (_, above) = self.entries(parent)?;
                    Found { parent: above, name: None, ino: Some(parent), directory }
                }
                name => {
                    let ino = entries.get(name).copied();
                    Found { parent: here, name: Some(name), ino, directory }
                }
            };
        }
        if directory && at.ino.is_some_and(|ino| !self.is_directory(ino)) {
            return Err(Error::NotDirectory);
        }
        Ok(at)
    }

    pub(super) fn existing(&self, path: &[u8]) -> Result<Ino, Error> {
        self.find(path)?.ino.ok_or(Error::NotFound)
    }
}
