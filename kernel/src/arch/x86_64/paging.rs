//! Builds the page tables that the monitor then loads for good.
//!
//! Everything is mapped where it is. 4 KiB pages up to the end of the table pool, where rights differ from page to page;
//! 2 MiB pages for the heap behind it.

/// Size of a small page.
pub const PAGE: usize = 4096;
/// Size of a large page.
pub const LARGE: usize = 2 << 20;
/// First address of the window in which stacks live.
pub const WINDOW: usize = 1 << 40;
/// Size of that window, as the monitor checks it.
pub const WINDOW_SIZE: usize = 1 << 38;
/// The window's regions, as bits of an address: one for each size of slots, numbered by the bits of an address in a slot.
pub const REGION_SHIFT: usize = 33;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const NO_CACHE: u64 = 1 << 4;
const LARGE_PAGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What may be done with a page. There is nothing that is both writable and executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// Program text.
    Execute,
    /// Constants.
    Read,
    /// Data, heap.
    Write,
    /// Device registers.
    Device,
    /// The monitor's code.
    MonitorExecute,
    /// The monitor's data and the tables themselves.
    MonitorWrite,
}

impl Rights {
    const fn bits(self) -> u64 {
        PRESENT
            | match self {
                Self::Execute => USER,
                Self::Read => USER | NO_EXECUTE,
                Self::Write => USER | WRITE | NO_EXECUTE,
                Self::Device => USER | WRITE | NO_EXECUTE | NO_CACHE | WRITE_THROUGH,
                Self::MonitorExecute => 0,
                Self::MonitorWrite => WRITE | NO_EXECUTE,
            }
    }
}

/// Where tables are made: zeroed pages that can be written now.
///
/// # Safety
/// `page` must return a page aligned address of a zeroed page that nothing else uses, and `at` a pointer by which it can be written.
pub unsafe trait Tables {
    /// Physical address of a new table, or `None` when there are no more.
    fn page(&mut self) -> Option<u64>;
    /// The table at that physical address.
    fn at(&self, physical: u64) -> *mut [u64; 512];
}

/// A set of tables being built.
#[derive(Debug)]
pub struct Builder<T> {
    tables: T,
    root: u64,
}

impl<T: Tables> Builder<T> {
    /// Empty tables.
    pub fn new(mut tables: T) -> Option<Self> {
        let root = tables.page()?;
        Some(Self { tables, root })
    }

    /// What goes into CR3.
    pub fn root(&self) -> u64 {
        self.root
    }

    /// The tables' memory again, to see how much is left.
    pub fn into_tables(self) -> T {
        self.tables
    }

    /// Maps `[from, to)` (page aligned) where it is, with large pages where that fits. `None` when out of tables.
    pub fn identity(&mut self, from: usize, to: usize, rights: Rights) -> Option<()> {
        let mut at = from;
        while at < to {
            if at.is_multiple_of(LARGE) && to - at >= LARGE {
                *self.entry(at, 2)? = at as u64 | rights.bits() | LARGE_PAGE;
                at += LARGE;
            } else {
                *self.entry(at, 1)? = at as u64 | rights.bits();
                at += PAGE;
            }
        }
        Some(())
    }

    /// Makes the table of the stack window's second level and returns its address.
    pub fn window(&mut self) -> Option<u64> {
        self.entry(WINDOW, 3)?;
        self.table(WINDOW, 4)
    }

    /// The entry for `address` in its table of `level` (1: 4 KiB pages), making tables above as needed.
    fn entry(&mut self, address: usize, level: u32) -> Option<&mut u64> {
        let table = self.table(address, level + 1)?;
        // SAFETY: `table` came from `Tables::page`, whose contract makes it ours and writable; the index is below 512.
        Some(unsafe { &mut (*self.tables.at(table))[index(address, level)] })
    }

    /// The table that an entry of `level` leads to, made if it is not there; level 5 is the root itself.
    fn table(&mut self, address: usize, level: u32) -> Option<u64> {
        if level == 5 {
            return Some(self.root);
        }
        let entry = *self.entry(address, level)?;
        if entry & PRESENT != 0 {
            return Some(entry & ADDRESS);
        }
        let new = self.tables.page()?;
        *self.entry(address, level)? = new | PRESENT | WRITE | USER;
        Some(new)
    }
}

const fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * (level - 1)) & 0x1ff
}
