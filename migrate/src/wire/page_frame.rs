//! Pages with their content: numbers first, then the pages as they are, so that a driver can send
//! and receive them without copying them through a buffer.
//!
//! ```text
//! u32 count, u32 zero, count × u64 page number, count × 4096 bytes
//! ```

use super::WireError;
use crate::PAGE;

/// Most pages in one message.
pub const PAGES_PER_FRAME: usize = 64;

/// The part of the body before the page data.
#[must_use]
pub fn encode_page_frame_head(numbers: &[u64]) -> Vec<u8> {
    let mut head = Vec::with_capacity(8 + numbers.len() * 8);
    head.extend((numbers.len() as u32).to_le_bytes());
    head.extend(0_u32.to_le_bytes());
    numbers.iter().for_each(|n| head.extend(n.to_le_bytes()));
    head
}

/// A body, read in place.
#[derive(Clone, Copy, Debug)]
pub struct PageFrame<'a> {
    numbers: &'a [u8],
    data: &'a [u8],
}

impl<'a> PageFrame<'a> {
    /// Checks a body whose page numbers must lie below `limit`.
    ///
    /// # Errors
    /// [`WireError::Body`].
    pub fn decode(body: &'a [u8], limit: usize) -> Result<Self, WireError> {
        let wrong = WireError::Body("pages");
        let (count, rest) = body.split_first_chunk::<4>().ok_or(wrong.clone())?;
        let (_, rest) = rest.split_first_chunk::<4>().ok_or(wrong.clone())?;
        let count = u32::from_le_bytes(*count) as usize;
        if count == 0 || count > PAGES_PER_FRAME || rest.len() != count * (8 + PAGE) {
            return Err(wrong);
        }
        let (numbers, data) = rest.split_at(count * 8);
        let frame = Self { numbers, data };
        if frame.iter().any(|(n, _)| n >= limit) {
            return Err(WireError::Body("a page outside of the VM's memory"));
        }
        Ok(frame)
    }

    /// Page numbers with their content.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &'a [u8; PAGE])> {
        let (pages, _) = self.data.as_chunks::<PAGE>();
        self.numbers().zip(pages)
    }

    /// Runs of consecutive pages, in place: the first number, and their content.
    pub fn runs(&self) -> impl Iterator<Item = (usize, &'a [[u8; PAGE]])> {
        let (mut left, _) = self.data.as_chunks::<PAGE>();
        let mut numbers = self.numbers().peekable();
        std::iter::from_fn(move || {
            let first = numbers.next()?;
            let mut count = 1;
            while numbers.next_if_eq(&(first + count)).is_some() {
                count += 1;
            }
            let (run, rest) = left.split_at(count);
            left = rest;
            Some((first, run))
        })
    }

    fn numbers(&self) -> impl Iterator<Item = usize> + use<'a> {
        let (numbers, _) = self.numbers.as_chunks::<8>();
        numbers.iter().map(|n| u64::from_le_bytes(*n) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_the_pages_in_their_order(numbers in prop::collection::vec(0_u64..6,
            1..=PAGES_PER_FRAME)) {
            let mut body = encode_page_frame_head(&numbers);
            (0..numbers.len()).for_each(|n| body.extend([n as u8; PAGE]));
            let frame = PageFrame::decode(&body, 6).unwrap();
            let one_by_one = frame.runs().flat_map(|(first, run)| (first..).zip(run));
            prop_assert!(one_by_one.eq(frame.iter()));
            let ends: Vec<_> = frame.runs().map(|(first, run)| (first,
                first + run.len())).collect();
            prop_assert!(ends.windows(2).all(|w| w[0].1 != w[1].0), "runs are as long as they can \
                be");
        }
    }
}
