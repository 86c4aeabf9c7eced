//! The guest's bitmap of pages whose content does not matter.

use super::{GuestRam, PageSet};
use std::sync::atomic::Ordering::Acquire;
use vmm_lite_interface::{
    control::ControlPage,
    layout::{IMAGE_BASE, PAGE_SIZE},
};

impl GuestRam {
    /// The pages that the guest says it does not care for, as a checked copy: never one below the image (those are the VMM's),
    /// never one of the bitmap itself, and the empty set where what the control page says of the bitmap cannot be true.
    /// Only a stopped guest's answer can be acted upon.
    #[must_use]
    pub fn dont_care(&self, control: &ControlPage) -> PageSet {
        let (address, len) = (control.dont_care.load(Acquire), control.dont_care_len.load(Acquire));
        let mut set = PageSet::new(self.pages());
        let most = self.pages().div_ceil(8) as u64;
        if address == 0 || !address.is_multiple_of(PAGE_SIZE) || len == 0 || len > most {
            return set;
        }
        let mut bytes = vec![0; len as usize];
        if self.read(address, &mut bytes).is_err() {
            return set;
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        let words = bytes.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
        set = PageSet::from_words(words, self.pages());
        (0..IMAGE_BASE / PAGE_SIZE).for_each(|page| set.remove(page as usize));
        let bitmap = address / PAGE_SIZE..(address + len).div_ceil(PAGE_SIZE);
        bitmap.for_each(|page| set.remove(page as usize));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Release;
    use vmm_lite_interface::layout::CONTROL_PAGE;

    /// What comes of a bitmap of ones at `address` with `len` bytes.
    fn of(address: u64, len: u64) -> Vec<usize> {
        let ram = GuestRam::new(4 << 20).unwrap();
        let control = ram.control_page();
        let _ = ram.write(address, &vec![0xff; len.min(4096) as usize]);
        control.dont_care.store(address, Release);
        control.dont_care_len.store(len, Release);
        ram.dont_care(control).iter().collect()
    }

    #[test]
    fn the_guest_is_heard_but_not_on_pages_that_are_not_its_own() {
        let pages = of(0x20_0000, 128);
        assert_eq!(pages.first(), Some(&256), "nothing below the image");
        assert!(!pages.contains(&512), "not the bitmap itself");
        assert_eq!(pages.len(), 1024 - 256 - 1);
    }

    #[test]
    fn what_cannot_be_true_is_not_believed() {
        assert!(of(0, 128).is_empty());
        assert!(of(0x20_0001, 128).is_empty(), "not aligned");
        assert!(of(0x20_0000, 129).is_empty(), "more than there are pages");
        assert!(of(0x20_0000, 0).is_empty());
        assert!(of(4 << 20, 128).is_empty(), "outside");
        assert!(of(!0xfff, 128).is_empty(), "far outside");
        assert_eq!(CONTROL_PAGE % PAGE_SIZE, 0);
    }
}
