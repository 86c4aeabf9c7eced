//! Builds the page tables that the monitor then loads for good.
//!
//! Everything is mapped where it is. 4 KiB pages up to the end of the table pool, where rights
//! differ from page to page; 2 MiB pages for the heap behind it.

/// Size of a small page.
pub const PAGE: usize = 4096;
/// Size of a large page.
pub const LARGE: usize = 2 << 20;
/// First address of the window of stacks.
pub const WINDOW: usize = 1 << 40;
/// Size of that window, as the monitor checks it.
pub const WINDOW_SIZE: usize = 1 << 38;
/// The window's regions, as bits of an address: one for each size of slots, numbered by the bits of
/// an address in a slot.
pub const REGION_SHIFT: usize = 33;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const NO_CACHE: u64 = 1 << 4;
/// Set in every entry from the beginning: a CPU may set it long before an access, so tables in
/// which it did would differ from run to run.
const ACCESSED: u64 = 1 << 5;
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
            | ACCESSED
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
/// `page` must return a page aligned address of a zeroed page that nothing else uses, and `at` a
/// pointer by which it can be written.
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

    /// Maps `[from, to)` (page aligned) where it is, with large pages where that fits. `None` when
    /// out of tables.
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

    /// The entry for `address` in its table of `level` (1: 4 KiB pages), making tables above as
    /// needed.
    fn entry(&mut self, address: usize, level: u32) -> Option<&mut u64> {
        let table = self.table(address, level + 1)?;
        // SAFETY: `table` came from `Tables::page`, whose contract makes it ours and writable; the
        // index is below 512.
        Some(unsafe { &mut (*self.tables.at(table))[index(address, level)] })
    }

    /// The table that an entry of `level` leads to, made if it is not there; level 5 is the root
    /// itself.
    fn table(&mut self, address: usize, level: u32) -> Option<u64> {
        if level == 5 {
            return Some(self.root);
        }
        let entry = *self.entry(address, level)?;
        if entry & PRESENT != 0 && entry & LARGE_PAGE == 0 {
            return Some(entry & ADDRESS);
        }
        let new = self.tables.page()?;
        if entry & LARGE_PAGE != 0 {
            // A large page of which a part is to have other rights.
            let small = (0..512).map(|n| (entry & !LARGE_PAGE) + n * PAGE as u64);
            // SAFETY: a new table, which is ours and writable.
            let table = unsafe { &mut *self.tables.at(new) };
            table.iter_mut().zip(small).for_each(|(to, entry)| *to = entry);
        }
        *self.entry(address, level)? = new | PRESENT | ACCESSED | WRITE | USER;
        Some(new)
    }
}

const fn index(address: usize, level: u32) -> usize {
    address >> (12 + 9 * (level - 1)) & 0x1ff
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::{boxed::Box, vec::Vec};
    use core::cell::UnsafeCell;
    use proptest::prelude::*;

    /// Tables at made-up physical addresses.
    #[derive(Default)]
    struct Fake(Vec<Box<UnsafeCell<[u64; 512]>>>);

    const FIRST: u64 = 0x7000_0000;

    // SAFETY: a new page each time, in a box of its own.
    unsafe impl Tables for Fake {
        fn page(&mut self) -> Option<u64> {
            if self.0.len() == 64 {
                return None;
            }
            self.0.push(Box::new(UnsafeCell::new([0; 512])));
            Some(FIRST + (self.0.len() as u64 - 1) * PAGE as u64)
        }

        fn at(&self, physical: u64) -> *mut [u64; 512] {
            self.0[((physical - FIRST) / PAGE as u64) as usize].get()
        }
    }

    /// What an access to `address` finds: the frame, and which of write, execute and use at CPL 3
    /// all levels allow.
    fn walk(tables: &Fake, root: u64, address: usize) -> Option<(usize, bool, bool, bool)> {
        let (mut table, mut write, mut execute, mut user) = (root, true, true, true);
        for level in (1..=4).rev() {
            // SAFETY: a table of the fake's.
            let entry = unsafe { (*tables.at(table))[index(address, level)] };
            if entry & PRESENT == 0 {
                return None;
            }
            write &= entry & WRITE != 0;
            execute &= entry & NO_EXECUTE == 0;
            user &= entry & USER != 0;
            table = entry & ADDRESS;
            if level == 1 || entry & LARGE_PAGE != 0 {
                let size = if level == 1 { PAGE } else { LARGE };
                let frame = table as usize & !(size - 1);
                return Some((frame + (address & (size - 1) & !(PAGE - 1)), write, execute, user));
            }
        }
        unreachable!("level 1 returns")
    }

    const ALL: [Rights; 6] = [
        Rights::Execute,
        Rights::Read,
        Rights::Write,
        Rights::Device,
        Rights::MonitorExecute,
        Rights::MonitorWrite,
    ];

    #[test]
    fn nothing_is_both_writable_and_executable() {
        for rights in ALL {
            let bits = rights.bits();
            assert!(bits & WRITE == 0 || bits & NO_EXECUTE != 0, "{rights:?}");
        }
        assert_eq!(Rights::MonitorExecute.bits() & USER, 0);
        assert_eq!(Rights::MonitorWrite.bits() & USER, 0);
    }

    proptest! {
        /// Ranges with rights, later ones over earlier ones, as a model of pages has it.
        #[test]
        fn each_page_is_mapped_where_it_is_with_its_rights(
            ranges in proptest::collection::vec((0..3000_usize, 0..1500_usize, 0..ALL.len()), 1..6),
        ) {
            let mut model = [None; 4608];
            let mut builder = Builder::new(Fake::default()).unwrap();
            for (first, pages, rights) in ranges {
                let range = first..first + pages;
                builder.identity(range.start * PAGE, range.end * PAGE, ALL[rights]).unwrap();
                model[range].fill(Some(ALL[rights]));
            }
            let root = builder.root();
            let tables = builder.into_tables();
            for (page, rights) in model.into_iter().enumerate() {
                let expected = rights.map(|r| {
                    let bits = r.bits();
                    (page * PAGE, bits & WRITE != 0, bits & NO_EXECUTE == 0, bits & USER != 0)
                });
                prop_assert_eq!(walk(&tables, root, page * PAGE + 8), expected);
            }
        }
    }

    #[test]
    fn small_pages_can_be_mapped_again() {
        let mut builder = Builder::new(Fake::default()).unwrap();
        builder.identity(PAGE, 20 * PAGE, Rights::Read).unwrap();
        builder.identity(4 * PAGE, 5 * PAGE, Rights::Write).unwrap();
        let root = builder.root();
        let tables = builder.into_tables();
        assert_eq!(walk(&tables, root, 0), None);
        assert_eq!(walk(&tables, root, 3 * PAGE), Some((3 * PAGE, false, false, true)));
        assert_eq!(walk(&tables, root, 4 * PAGE), Some((4 * PAGE, true, false, true)));
    }

    #[test]
    fn the_window_is_empty_and_its_table_known() {
        let mut builder = Builder::new(Fake::default()).unwrap();
        let table = builder.window().unwrap();
        assert_eq!(builder.window(), Some(table));
        let tables = builder.into_tables();
        // SAFETY: a table of the fake's.
        assert!(unsafe { *tables.at(table) }.iter().all(|entry| *entry == 0));
    }

    #[test]
    fn running_out_of_tables_is_reported() {
        let mut builder = Builder::new(Fake::default()).unwrap();
        // A gigabyte of small pages needs 512 tables.
        assert_eq!(
            builder.identity(PAGE, (1 << 30) - PAGE, Rights::Write).and_then(|()| {
                (0..64).try_for_each(|n| {
                    builder.identity((n << 30) + PAGE, (n << 30) + 2 * PAGE, Rights::Read)
                })
            }),
            None
        );
    }
}
