//! The VMM's reader of a guest's page tables.

use super::{GuestRam, PAGE};
use std::collections::{BTreeMap, btree_map::Entry};

const PRESENT: u64 = 1;
const USER: u64 = 1 << 2;
/// The CPU sets these bits; they do not affect the mapping.
const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The range that one last-level table maps.
const LARGE_PAGE: usize = 2 << 20;

type Table = [u64; 512];

/// The tables through which addresses were looked up, with their content at that time.
#[derive(Debug)]
pub struct Tables {
    root: u64,
    seen: BTreeMap<usize, Box<Table>>,
}

impl Tables {
    /// The tables that begin at `cr3`.
    #[must_use]
    pub fn new(cr3: u64) -> Self {
        Self { root: cr3 & ADDRESS, seen: BTreeMap::new() }
    }

    /// Whether a program may read at `address`, and page number `address / PAGE` of `ram` is mapped
    /// there.
    pub fn is_itself(&mut self, ram: &GuestRam, address: u64) -> bool {
        let found = self.look_up(ram, address, PRESENT | USER);
        found.is_some_and(|(level, physical)| level <= 2 && physical == address)
    }

    /// Looks `address` up in tables whose entries all have the bits `with`: the level of the entry
    /// that maps it, and the physical address.
    fn look_up(&mut self, ram: &GuestRam, address: u64, with: u64) -> Option<(u32, u64)> {
        let mut table = self.root;
        for level in (1..=4).rev() {
            let shift = 12 + 9 * (level - 1);
            let entry = self.table(ram, table)?[(address >> shift) as usize & 0x1ff];
            if entry & with != with {
                return None;
            }
            let within = (1_u64 << shift) - 1;
            if level == 1 || entry & LARGE != 0 {
                return Some((level, entry & ADDRESS & !within | address & within));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Reads what a program, or the monitor, finds at `address`: up to the first byte that is not
    /// mapped to memory. Returns how many bytes were read. Unless `paged`, addresses are physical.
    pub fn read(&mut self, ram: &GuestRam, paged: bool, address: u64, to: &mut [u8]) -> usize {
        let mut read = 0;
        while read < to.len() {
            let Some(at) = address.checked_add(read as u64) else { break };
            let left_of_page = PAGE - at as usize % PAGE;
            let n = left_of_page.min(to.len() - read);
            let physical = match paged {
                false => Some(at),
                true => self.look_up(ram, at, PRESENT).map(|(_, physical)| physical),
            };
            if physical.is_none_or(|at| ram.read(at, &mut to[read..read + n]).is_err()) {
                break;
            }
            read += n;
        }
        read
    }

    fn table(&mut self, ram: &GuestRam, at: u64) -> Option<&Table> {
        let page = usize::try_from(at / PAGE as u64).ok()?;
        match self.seen.entry(page) {
            Entry::Occupied(seen) => Some(seen.into_mut()),
            Entry::Vacant(new) => {
                let mut table = Box::new([0; 512]);
                read(ram, page, &mut table)?;
                Some(new.insert(table))
            }
        }
    }

    /// Looks up all of `ram`.
    #[must_use]
    pub fn of_all(cr3: u64, ram: &GuestRam) -> Self {
        let mut tables = Self::new(cr3);
        for address in (0..ram.size()).step_by(LARGE_PAGE) {
            tables.is_itself(ram, address);
        }
        tables
    }

    /// The pages that hold the tables.
    pub fn pages(&self) -> impl Iterator<Item = usize> + '_ {
        self.seen.keys().copied()
    }

    /// Whether the tables still have the same content.
    #[must_use]
    pub fn unchanged(&self, ram: &GuestRam) -> bool {
        let mut now = [0; 512];
        self.seen.iter().all(|(page, table)| read(ram, *page, &mut now).is_some() && now == **table)
    }
}

/// Reads a table without the bits that the CPU sets. `None` where there is no memory.
fn read(ram: &GuestRam, page: usize, table: &mut Table) -> Option<()> {
    let mut bytes = [0; PAGE];
    ram.read_page(page, &mut bytes).ok()?;
    for (entry, bytes) in table.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *entry = u64::from_le_bytes(*bytes) & !ACCESSED_DIRTY;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: u64 = PRESENT | USER | 1 << 1;

    /// 4 MiB, of which the first two are mapped by small pages and the rest by a large one; the
    /// tables are in pages 256 to 259.
    fn ram() -> GuestRam {
        let ram = GuestRam::new(4 << 20).unwrap();
        let entry = |page: u64, n: u64, value: u64| {
            ram.writable_while_stopped()
                .write(page * PAGE as u64 + n * 8, &value.to_le_bytes())
                .unwrap();
        };
        let at = |page: u64| page * PAGE as u64;
        entry(256, 0, at(257) | ALL);
        entry(257, 0, at(258) | ALL);
        entry(258, 0, at(259) | ALL);
        entry(258, 1, 2 << 20 | ALL | LARGE);
        (0..512).for_each(|n| entry(259, n, at(n) | ALL));
        entry(259, 7, at(7) | PRESENT);
        entry(259, 8, 0);
        entry(259, 9, at(10) | ALL);
        ram
    }

    #[test]
    fn identity_mappings_for_programs_are_found() {
        let ram = ram();
        let mut tables = Tables::new((256 * PAGE as u64) | 0x18);
        let mut is = |page: u64| tables.is_itself(&ram, page * PAGE as u64);
        assert!(is(1) && is(511) && is(512) && is(1023));
        // The monitor's own page, one not present, one mapped elsewhere; beyond the mapped range.
        assert!(!is(7) && !is(8) && !is(9) && !is(1024) && !is(1 << 40));
        assert!(!Tables::new(1 << 40).is_itself(&ram, 0));
        assert_eq!(
            Tables::of_all(256 * PAGE as u64, &ram).pages().collect::<Vec<_>>(),
            [256, 257, 258, 259]
        );
    }

    #[test]
    fn what_is_mapped_is_read_across_pages() {
        let ram = ram();
        let byte = |at: u64, value: u8| ram.writable_while_stopped().write(at, &[value]).unwrap();
        byte(7 * PAGE as u64 - 1, 1);
        byte(7 * PAGE as u64, 2);
        byte(10 * PAGE as u64, 3);
        let mut tables = Tables::new(256 * PAGE as u64);
        let mut read = |paged, address: u64| {
            let mut to = [0; 2];
            let n = tables.read(&ram, paged, address, &mut to);
            (n, to)
        };
        assert_eq!(read(true, 7 * PAGE as u64 - 1), (2, [1, 2]), "the monitor's page too");
        assert_eq!(read(true, 8 * PAGE as u64 - 1), (1, [0, 0]), "up to what is not mapped");
        assert_eq!(read(true, 9 * PAGE as u64), (2, [3, 0]), "mapped elsewhere");
        assert_eq!(read(false, 10 * PAGE as u64), (2, [3, 0]));
        assert_eq!(read(true, u64::MAX).0, 0);
        assert_eq!(read(false, (4 << 20) - 1).0, 1, "up to the end of memory");
    }

    #[test]
    fn a_change_is_seen_but_bits_of_the_cpu_are_not_one() {
        let ram = ram();
        let mut tables = Tables::new(256 * PAGE as u64);
        assert!(tables.is_itself(&ram, 0));
        assert!(tables.unchanged(&ram));
        ram.writable_while_stopped()
            .write(259 * PAGE as u64, &(ALL | ACCESSED_DIRTY).to_le_bytes())
            .unwrap();
        assert!(tables.unchanged(&ram));
        ram.writable_while_stopped().write(259 * PAGE as u64 + 80, &PRESENT.to_le_bytes()).unwrap();
        assert!(!tables.unchanged(&ram));
    }
}
