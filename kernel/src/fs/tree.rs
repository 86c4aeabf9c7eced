//! The tree of directories and files.
//!
//! A file exists as long as it has a name or is open. Relative paths begin at the root: the ABI has
//! no working directory.

mod lookup;
#[cfg(test)]
mod tests;

use super::{Error, content::Content};
use alloc::{collections::BTreeMap, vec::Vec};

/// Number of a file or directory, of which none is used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ino(pub u64);

/// The root directory.
pub const ROOT: Ino = Ino(1);

/// What [`Tree::stat`] returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Which.
    pub ino: Ino,
    /// It is a directory.
    pub is_directory: bool,
    /// Bytes it is long.
    pub len: u64,
    /// Bytes of memory it takes.
    pub allocated: u64,
    /// Permissions, as it was made with; they are not enforced.
    pub mode: u32,
    /// Names it has.
    pub links: u64,
    /// Nanoseconds since 1970 when it was made.
    pub created: u64,
    /// … and last changed.
    pub modified: u64,
    /// … and last read.
    pub accessed: u64,
}

#[derive(Debug)]
enum Kind {
    File(Content),
    Directory { entries: BTreeMap<Vec<u8>, Ino>, parent: Ino },
}

#[derive(Debug)]
struct Inode {
    kind: Kind,
    mode: u32,
    named: bool,
    opened: usize,
    created: u64,
    modified: u64,
    accessed: u64,
}

/// How to open a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct Open {
    /// It is going to be written.
    pub write: bool,
    /// It is made if it does not exist.
    pub create: bool,
    /// It must not exist.
    pub exclusive: bool,
    /// What is in it is dropped.
    pub truncate: bool,
    /// It must be a directory.
    pub directory: bool,
    /// Permissions of a new one.
    pub mode: u32,
}

/// See the module. All times are given by the caller, in nanoseconds since 1970.
#[derive(Debug)]
pub struct Tree {
    inodes: BTreeMap<Ino, Inode>,
    next: u64,
}

impl Tree {
    /// A root with an empty `tmp`.
    #[must_use]
    pub fn new(now: u64) -> Self {
        let mut this = Self { inodes: BTreeMap::new(), next: ROOT.0 };
        let root = this.insert(Self::directory(ROOT), 0o755, now);
        debug_assert_eq!(root, ROOT);
        let made = this.make_directory(b"/tmp", 0o777, now);
        debug_assert_eq!(made, Ok(()));
        this
    }

    const fn directory(parent: Ino) -> Kind {
        Kind::Directory { entries: BTreeMap::new(), parent }
    }

    fn insert(&mut self, kind: Kind, mode: u32, now: u64) -> Ino {
        let ino = Ino(self.next);
        self.next += 1;
        let (created, modified, accessed) = (now, now, now);
        let inode = Inode { kind, mode, named: true, opened: 0, created, modified, accessed };
        self.inodes.insert(ino, inode);
        ino
    }

    fn inode(&self, ino: Ino) -> Result<&Inode, Error> {
        self.inodes.get(&ino).ok_or(Error::NotFound)
    }

    fn inode_mut(&mut self, ino: Ino) -> Result<&mut Inode, Error> {
        self.inodes.get_mut(&ino).ok_or(Error::NotFound)
    }

    fn entries(&self, ino: Ino) -> Result<(&BTreeMap<Vec<u8>, Ino>, Ino), Error> {
        match &self.inode(ino)?.kind {
            Kind::Directory { entries, parent } => Ok((entries, *parent)),
            Kind::File(_) => Err(Error::NotDirectory),
        }
    }

    fn entries_mut(&mut self, ino: Ino) -> Result<&mut BTreeMap<Vec<u8>, Ino>, Error> {
        match &mut self.inode_mut(ino)?.kind {
            Kind::Directory { entries, .. } => Ok(entries),
            Kind::File(_) => Err(Error::NotDirectory),
        }
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.entries(ino).is_ok()
    }

    /// Opens a file or directory, which exists from now until [`close`](Self::close).
    ///
    /// # Errors
    /// As on Linux.
    pub fn open(&mut self, path: &[u8], how: Open, now: u64) -> Result<Ino, Error> {
        let found = self.find(path)?;
        let ino = match (found.ino, found.name) {
            (Some(_), _) if how.create && how.exclusive => return Err(Error::Exists),
            (Some(ino), _) => {
                match self.is_directory(ino) {
                    true if how.write || how.create || how.truncate => {
                        return Err(Error::IsDirectory);
                    }
                    false if how.directory => return Err(Error::NotDirectory),
                    _ => {}
                }
                if how.truncate {
                    self.set_len(ino, 0, now)?;
                }
                ino
            }
            (None, Some(name)) if how.create => {
                if found.directory {
                    return Err(Error::IsDirectory);
                }
                let (parent, name) = (found.parent, name.to_vec());
                let ino = self.insert(Kind::File(Content::default()), how.mode & 0o7777, now);
                self.entries_mut(parent)?.insert(name, ino);
                self.inode_mut(parent)?.modified = now;
                ino
            }
            _ => return Err(Error::NotFound),
        };
        self.inode_mut(ino)?.opened += 1;
        Ok(ino)
    }

    /// What was opened is not needed any more.
    pub fn close(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.opened -= 1;
            self.drop_unused(ino);
        }
    }

    fn drop_unused(&mut self, ino: Ino) {
        if self.inodes.get(&ino).is_some_and(|inode| !inode.named && inode.opened == 0) {
            self.inodes.remove(&ino);
        }
    }

    fn content(&mut self, ino: Ino) -> Result<(&mut Content, &mut u64, &mut u64), Error> {
        let Inode { kind, modified, accessed, .. } = self.inode_mut(ino)?;
        match kind {
            Kind::File(content) => Ok((content, modified, accessed)),
            Kind::Directory { .. } => Err(Error::IsDirectory),
        }
    }

    /// Reads from `at` on; how much there was.
    ///
    /// # Errors
    /// [`Error::IsDirectory`].
    pub fn read(&mut self, ino: Ino, at: u64, to: &mut [u8], now: u64) -> Result<usize, Error> {
        let (content, _, accessed) = self.content(ino)?;
        *accessed = now;
        Ok(content.read(at, to))
    }

    /// Writes at `at`; how much there was memory for.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::TooLarge`].
    pub fn write(&mut self, ino: Ino, at: u64, from: &[u8], now: u64) -> Result<usize, Error> {
        let (content, modified, _) = self.content(ino)?;
        *modified = now;
        content.write(at, from)
    }

    /// Length of a file; 0 for a directory.
    pub fn len(&mut self, ino: Ino) -> u64 {
        self.content(ino).map_or(0, |(content, ..)| content.size())
    }

    /// Makes a file `len` bytes long.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::IsDirectory`].
    pub fn set_len(&mut self, ino: Ino, len: u64, now: u64) -> Result<(), Error> {
        let (content, modified, _) = self.content(ino)?;
        *modified = now;
        content.set_len(len)
    }

    /// Size, times and so on of an open file.
    ///
    /// # Errors
    /// [`Error::NotFound`] for one that was not opened.
    pub fn stat(&self, ino: Ino) -> Result<Stat, Error> {
        let inode = self.inode(ino)?;
        let (is_directory, len, allocated) = match &inode.kind {
            Kind::File(content) => (false, content.size(), content.allocated()),
            Kind::Directory { entries, .. } => (true, entries.len() as u64, 0),
        };
        let Inode { mode, named, created, modified, accessed, .. } = *inode;
        let links = u64::from(named) * if is_directory { 2 } else { 1 };
        Ok(Stat { ino, is_directory, len, allocated, mode, links, created, modified, accessed })
    }

    /// Size, times and so on of the file at `path`.
    ///
    /// # Errors
    /// As on Linux.
    pub fn stat_path(&self, path: &[u8]) -> Result<Stat, Error> {
        self.stat(self.existing(path)?)
    }

    /// What is in a directory: names, numbers, and which are directories.
    ///
    /// # Errors
    /// [`Error::NotDirectory`].
    pub fn list(&self, ino: Ino) -> Result<impl Iterator<Item = (&[u8], Ino, bool)>, Error> {
        let (entries, _) = self.entries(ino)?;
        Ok(entries.iter().map(|(name, &ino)| (name.as_slice(), ino, self.is_directory(ino))))
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As on Linux.
    pub fn make_directory(&mut self, path: &[u8], mode: u32, now: u64) -> Result<(), Error> {
        let found = self.find(path)?;
        let (None, Some(name)) = (found.ino, found.name) else { return Err(Error::Exists) };
        let (parent, name) = (found.parent, name.to_vec());
        let ino = self.insert(Self::directory(parent), mode & 0o7777, now);
        self.entries_mut(parent)?.insert(name, ino);
        self.inode_mut(parent)?.modified = now;
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As on Linux.
    pub fn remove_directory(&mut self, path: &[u8], now: u64) -> Result<(), Error> {
        let found = self.find(path)?;
        let ino = found.ino.ok_or(Error::NotFound)?;
        let (entries, _) = self.entries(ino)?;
        let empty = entries.is_empty();
        let Some(name) = found.name else {
            return Err(if ino == ROOT { Error::Busy } else { Error::Invalid });
        };
        if !empty {
            return Err(Error::NotEmpty);
        }
        self.remove(found.parent, name, ino, now)
    }

    /// Removes a file's name, and the file when nothing has it open.
    ///
    /// # Errors
    /// As on Linux.
    pub fn unlink(&mut self, path: &[u8], now: u64) -> Result<(), Error> {
        let found = self.find(path)?;
        let ino = found.ino.ok_or(Error::NotFound)?;
        match found.name {
            Some(name) if !self.is_directory(ino) => self.remove(found.parent, name, ino, now),
            _ => Err(Error::IsDirectory),
        }
    }

    fn remove(&mut self, parent: Ino, name: &[u8], ino: Ino, now: u64) -> Result<(), Error> {
        self.entries_mut(parent)?.remove(name);
        self.inode_mut(parent)?.modified = now;
        self.inode_mut(ino)?.named = false;
        self.drop_unused(ino);
        Ok(())
    }
}
