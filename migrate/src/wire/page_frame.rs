//! Pages with their content: numbers first, then the pages as they are, so that a driver can send and receive them without
//! copying them through a buffer.
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

/// A body, looked into where it lies.
#[derive(Clone, Copy, Debug)]
pub struct PageFrame<'a> {
    numbers: &'a [u8],
    data: &'a [u8],
}

impl<'a> PageFrame<'a> {
    /// Judges a body whose page numbers must lie below `limit`.
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
        let (numbers, _) = self.numbers.as_chunks::<8>();
        let (pages, _) = self.data.as_chunks::<PAGE>();
        numbers.iter().map(|n| u64::from_le_bytes(*n) as usize).zip(pages)
    }
}
