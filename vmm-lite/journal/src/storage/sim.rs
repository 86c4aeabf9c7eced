//! A directory in memory whose power can be cut.
//!
//! It keeps for each file, and for the directory, what is durable and what was done since. A
//! [power cut](Disk::cut) leaves what is durable, and of the rest whatever the chooser picks: any
//! subset of the writes, each whole, not at all, or by sectors, a sector possibly torn; any subset
//! of the creations, renames and removals. The only order that holds is that of a sync. A torn
//! sector has its first bytes from the new content and the others from the old; bytes that are the
//! same in both do not change ("powersafe overwrite").

use super::{Directory, Lock, Stored};
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// What a disk writes at once.
const SECTOR: u64 = 512;

/// Picks one of `n` (at least 1) possibilities; tests give a random one or the next of a list.
pub type Choose<'a> = &'a mut dyn FnMut(usize) -> usize;

/// A disk with one directory. Clones share it.
#[derive(Clone, Default)]
pub struct Disk {
    inner: Arc<Mutex<Inner>>,
    locked: Arc<AtomicBool>,
}

#[derive(Default)]
struct Inner {
    files: Vec<Content>,
    durable_names: BTreeMap<String, usize>,
    names: BTreeMap<String, usize>,
    changes: Vec<NameChange>,
    /// Operations so far that change or sync something.
    operations: u64,
    faults: Vec<(u64, Fault)>,
    dead: bool,
    /// Space for content in bytes.
    capacity: Option<u64>,
}

/// What one file holds.
#[derive(Clone, Default)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Size(u64),
}

/// Names that a creation, rename or removal sets or removes, together.
struct NameChange(Vec<(String, Option<usize>)>);

/// What goes wrong at an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The power is cut: this and every later operation fails, and has no effect.
    PowerCut,
    /// It fails with this number of an error, of a write after half of the bytes.
    Error(i32),
}

impl Disk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Operations so far that change or sync something.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// Makes `fault` happen at operation number `at`; the first has number 0.
    pub fn fault(&self, at: u64, fault: Fault) {
        self.inner().faults.push((at, fault));
    }

    /// Sets the space for content in bytes; `None` is unlimited.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.inner().capacity = capacity;
    }

    /// Bytes that the files have.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.inner().used()
    }

    /// The directory's files and their content, durable or not.
    #[must_use]
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let inner = self.inner();
        inner.names.iter().map(|(n, id)| (n.clone(), inner.files[*id].now.clone())).collect()
    }

    /// A disk with these files, all durable.
    #[must_use]
    pub fn with_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let mut inner = Inner::default();
        for (name, content) in files {
            inner.names.insert(name, inner.files.len());
            inner.files.push(Content {
                durable: content.clone(),
                now: content,
                changes: Vec::new(),
            });
        }
        inner.durable_names = inner.names.clone();
        Self { inner: Arc::new(Mutex::new(inner)), locked: Arc::default() }
    }

    /// The disk after a power cut now: what was durable, and of the rest what `choose` picks.
    #[must_use]
    pub fn cut(&self, choose: Choose<'_>) -> Self {
        let inner = self.inner();
        let mut names = inner.durable_names.clone();
        let any = choose(3);
        for change in &inner.changes {
            // None, all, or any of them.
            if any == 1 || any == 2 && choose(2) == 1 {
                apply_names(&mut names, change);
            }
        }
        let file = |(name, id): (&String, &usize)| {
            (name.clone(), inner.files[*id].after_cut(&mut *choose))
        };
        let files = names.iter().map(file).collect();
        drop(inner);
        Self::with_files(files)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply_names(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    for (name, id) in &change.0 {
        match id {
            Some(id) => drop(names.insert(name.clone(), *id)),
            None => drop(names.remove(name)),
        }
    }
}

impl Content {
    fn after_cut(&self, choose: Choose<'_>) -> Vec<u8> {
        let mut content = self.durable.clone();
        let any = choose(3);
        for change in &self.changes {
            if any == 0 || any == 2 && choose(2) == 0 {
                continue;
            }
            match change {
                Change::Write { offset, bytes } if any == 2 => {
                    write_some(&mut content, *offset, bytes, choose);
                }
                other => apply(&mut content, other),
            }
        }
        content
    }
}

/// Writes some of the sectors, and of one perhaps only the first bytes.
fn write_some(content: &mut Vec<u8>, offset: u64, bytes: &[u8], choose: Choose<'_>) {
    let (mut at, end) = (offset, offset + bytes.len() as u64);
    while at < end {
        let next = ((at / SECTOR + 1) * SECTOR).min(end);
        let sector = &bytes[(at - offset) as usize..(next - offset) as usize];
        let part = match choose(4) {
            0 => 0,
            1 => choose(sector.len() + 1),
            _ => sector.len(),
        };
        apply(content, &Change::Write { offset: at, bytes: sector[..part].to_vec() });
        at = next;
    }
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Size(size) => content.resize(*size as usize, 0),
        Change::Write { bytes, .. } if bytes.is_empty() => {}
        Change::Write { offset, bytes } => {
            let (begin, end) = (*offset as usize, *offset as usize + bytes.len());
            content.resize(content.len().max(end), 0);
            content[begin..end].copy_from_slice(bytes);
        }
    }
}

impl Inner {
    fn used(&self) -> u64 {
        self.names.values().map(|id| self.files[*id].now.len() as u64).sum()
    }

    /// Counts an operation, and fails where a fault is due.
    fn operation(&mut self) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        let due = self.faults.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
        self.dead |= due == Some(Fault::PowerCut);
        match due {
            _ if self.dead => Err(io::Error::other("the power is cut")),
            Some(Fault::Error(number)) => Err(io::Error::from_raw_os_error(number)),
            _ => Ok(()),
        }
    }

    fn room_for(&self, id: usize, size: u64) -> io::Result<()> {
        let more = size.saturating_sub(self.files[id].now.len() as u64);
        match self.capacity {
            Some(capacity) if self.used() + more > capacity && more > 0 => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            _ => Ok(()),
        }
    }

    fn change(&mut self, id: usize, change: Change) {
        apply(&mut self.files[id].now, &change);
        self.files[id].changes.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_names(&mut self, change: NameChange) {
        apply_names(&mut self.names, &change);
        self.changes.push(change);
    }
}

impl Directory for Disk {
    fn path(&self, name: &str) -> PathBuf {
        name.into()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.inner().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let id = self.inner().find(name)?;
        Ok(Box::new(OpenFile { disk: self.clone(), id }))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        self.open(name)
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Stored>> {
        let mut inner = self.inner();
        inner.operation()?;
        if inner.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = inner.files.len();
        inner.files.push(Content::default());
        inner.change_names(NameChange(vec![(name.into(), Some(id))]));
        Ok(Box::new(OpenFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        let id = inner.find(from)?;
        inner.change_names(NameChange(vec![(from.into(), None), (to.into(), Some(id))]));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        inner.find(name)?;
        inner.change_names(NameChange(vec![(name.into(), None)]));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        inner.operation()?;
        inner.durable_names = inner.names.clone();
        inner.changes.clear();
        Ok(())
    }

    fn lock(&self) -> io::Result<Option<Box<dyn Lock>>> {
        let free = !self.locked.swap(true, SeqCst);
        Ok(free.then(|| Box::new(Held(Arc::clone(&self.locked))) as Box<dyn Lock>))
    }
}

struct Held(Arc<AtomicBool>);

impl Lock for Held {}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}

struct OpenFile {
    disk: Disk,
    id: usize,
}

impl Stored for OpenFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.inner().files[self.id].now.len() as u64)
    }

    fn read_at(&self, to: &mut [u8], offset: u64) -> io::Result<usize> {
        let inner = self.disk.inner();
        let content = &inner.files[self.id].now;
        let begin = content.len().min(offset as usize);
        let n = to.len().min(content.len() - begin);
        to[..n].copy_from_slice(&content[begin..begin + n]);
        Ok(n)
    }

    fn write_at(&self, from: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        let failed =
            inner.operation().and_then(|()| inner.room_for(self.id, offset + from.len() as u64));
        let part = match failed {
            Ok(()) => from,
            Err(_) if inner.dead => &[],
            Err(_) => &from[..from.len() / 2],
        };
        if !part.is_empty() {
            inner.change(self.id, Change::Write { offset, bytes: part.to_vec() });
        }
        failed
    }

    fn allocate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.operation()?;
        inner.room_for(self.id, size)?;
        let size = size.max(inner.files[self.id].now.len() as u64);
        inner.change(self.id, Change::Size(size));
        Ok(())
    }

    fn truncate(&self, size: u64) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.operation()?;
        inner.change(self.id, Change::Size(size));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.disk.inner();
        inner.operation()?;
        let file = &mut inner.files[self.id];
        file.durable = file.now.clone();
        file.changes.clear();
        Ok(())
    }
}
