//! The guest's page hints: a bitmap of pages whose content does not matter.

use super::{GuestRam, PageSet, looked_at};
use migrate::page_set::GROUP;
use std::{array, sync::atomic::Ordering::Acquire};
use vm_memory::Bytes;
use vmm_lite_interface::{
    control::ControlPage,
    layout::{IMAGE_BASE, PAGE_SIZE},
};

impl GuestRam {
    /// The pages that the guest hints as not needed, as a checked copy: never one below the image
    /// (those are the VMM's), never one of the bitmap itself, and the empty set if the control page
    /// describes an invalid bitmap. Only the hints of a stopped guest may be used.
    #[must_use]
    pub fn page_hints(&self, control: &ControlPage) -> PageSet {
        self.page_hints_in(control, 0..self.pages().div_ceil(GROUP))
    }

    /// The hints for `pages` and their neighbors. It reads only the bitmap's words for these,
    /// however large the rest is.
    #[must_use]
    pub fn page_hints_near(&self, control: &ControlPage, pages: &PageSet) -> PageSet {
        self.page_hints_in(control, pages.groups())
    }

    fn page_hints_in(&self, control: &ControlPage, groups: impl Iterator<Item = usize>) -> PageSet {
        let (address, len) =
            (control.page_hints.load(Acquire), control.page_hints_len.load(Acquire));
        let mut set = PageSet::none(self.pages());
        let most = self.pages().div_ceil(8) as u64;
        if address == 0 || !address.is_multiple_of(PAGE_SIZE) || len == 0 || len > most {
            return set;
        }
        let Ok(bitmap) = self.window(address, len as usize) else { return set };
        for group in groups {
            let mut bytes = [0; GROUP / 8];
            // The bitmap may end within a group, or before it.
            let Ok(1..) = bitmap.read(&mut bytes, group * (GROUP / 8)) else { break };
            looked_at(bytes.len() / 8);
            let words = bytes.as_chunks::<8>().0;
            set.insert_group(group, array::from_fn(|n| u64::from_le_bytes(words[n])));
        }
        let mut never = PageSet::none(self.pages());
        let own = (address / PAGE_SIZE, len.div_ceil(PAGE_SIZE));
        never.insert_runs(&[(0, IMAGE_BASE / PAGE_SIZE), own]);
        set.take_out(&never);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Release;
    use vmm_lite_interface::layout::CONTROL_PAGE;

    /// The hints from a bitmap of ones at `address` with `len` bytes.
    fn of(address: u64, len: u64) -> Vec<usize> {
        let ram = GuestRam::new(4 << 20).unwrap();
        let control = ram.control_page();
        let _ = ram.writable_while_stopped().write(address, &vec![0xff; len.min(4096) as usize]);
        control.page_hints.store(address, Release);
        control.page_hints_len.store(len, Release);
        ram.page_hints(control).iter().collect()
    }

    #[test]
    fn hints_count_only_for_the_guests_own_pages() {
        let pages = of(0x20_0000, 128);
        assert_eq!(pages.first(), Some(&256), "nothing below the image");
        assert!(!pages.contains(&512), "not the bitmap itself");
        assert_eq!(pages.len(), 1024 - 256 - 1);
    }

    /// Reading part of the guest's bitmap gives the same hints as reading all of it.
    #[test]
    fn reading_a_part_gives_the_same_hints_as_reading_all() {
        let ram = GuestRam::new(40 << 20).unwrap();
        let control = ram.control_page();
        // The bitmap ends within a group.
        let bits: Vec<u8> =
            (0..1001_u32).map(|n| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
        ram.writable_while_stopped().write(0x20_0000, &bits).unwrap();
        control.page_hints.store(0x20_0000, Release);
        control.page_hints_len.store(bits.len() as u64, Release);
        let whole = ram.page_hints(control);
        assert!(whole.len() > 3000);
        for pages in [vec![], vec![0], vec![255, 513], vec![600, 5000, 7999, 8007, 8008, 9000]] {
            let mut asked = PageSet::none(ram.pages());
            pages.iter().for_each(|page| asked.insert(*page));
            let mut part = ram.page_hints_near(control, &asked);
            assert!(part.iter().all(|page| whole.contains(page)));
            part.keep(&asked);
            asked.keep(&whole);
            assert_eq!(part, asked, "{pages:?}");
        }
    }

    #[test]
    fn an_invalid_bitmap_gives_no_hints() {
        assert!(of(0, 128).is_empty());
        assert!(of(0x20_0001, 128).is_empty(), "not aligned");
        assert!(of(0x20_0000, 129).is_empty(), "more than there are pages");
        assert!(of(0x20_0000, 0).is_empty());
        assert!(of(4 << 20, 128).is_empty(), "outside");
        assert!(of(!0xfff, 128).is_empty(), "far outside");
        assert_eq!(CONTROL_PAGE % PAGE_SIZE, 0);
    }
}
