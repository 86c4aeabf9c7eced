//! What is in a file: pages, of which those that were never written are not there and read as
//! zeros.

use super::Error;
use alloc::{boxed::Box, vec::Vec};

const PAGE: usize = 4096;
/// Longest file.
pub const LONGEST: u64 = 1 << 40;

/// See the module.
#[derive(Debug, Default)]
pub struct Content {
    pages: Vec<Option<Box<[u8]>>>,
    len: u64,
}

impl Content {
    /// Bytes it is long.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Bytes of memory it takes.
    pub fn allocated(&self) -> u64 {
        (self.pages.iter().flatten().count() * PAGE) as u64
    }

    /// Reads from `at` on; how much there was.
    pub fn read(&self, at: u64, to: &mut [u8]) -> usize {
        let left = self.len.saturating_sub(at);
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(to.len());
        let mut done = 0;
        while done < n {
            let position = at as usize + done;
            let (page, offset) = (position / PAGE, position % PAGE);
            let piece = (PAGE - offset).min(n - done);
            let to = &mut to[done..done + piece];
            match self.pages.get(page).and_then(Option::as_ref) {
                Some(page) => to.copy_from_slice(&page[offset..offset + piece]),
                None => to.fill(0),
            }
            done += piece;
        }
        n
    }

    /// Writes at `at`; how much there was memory for.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when there was none at all, [`Error::TooLarge`].
    pub fn write(&mut self, at: u64, from: &[u8]) -> Result<usize, Error> {
        let end = at.checked_add(from.len() as u64).filter(|&end| end <= LONGEST);
        let end = end.ok_or(Error::TooLarge)? as usize;
        let count = end.div_ceil(PAGE);
        if count > self.pages.len() && !from.is_empty() {
            let more = count - self.pages.len();
            self.pages.try_reserve(more).map_err(|_| Error::NoSpace)?;
            self.pages.resize_with(count, || None);
        }
        let mut done = 0;
        while done < from.len() {
            let position = at as usize + done;
            let (page, offset) = (position / PAGE, position % PAGE);
            let piece = (PAGE - offset).min(from.len() - done);
            let Some(to) = present(&mut self.pages[page]) else { break };
            to[offset..offset + piece].copy_from_slice(&from[done..done + piece]);
            done += piece;
        }
        if done == 0 && !from.is_empty() {
            return Err(Error::NoSpace);
        }
        if done > 0 {
            self.len = self.len.max(at + done as u64);
        }
        Ok(done)
    }

    /// Makes it `len` bytes long.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub fn set_len(&mut self, len: u64) -> Result<(), Error> {
        if len > LONGEST {
            return Err(Error::TooLarge);
        }
        if len < self.len {
            let count = (len as usize).div_ceil(PAGE);
            self.pages.truncate(count);
            self.pages.shrink_to(count.max(self.pages.capacity() / 4));
            // What is cut off must not come back when the file grows again.
            if !(len as usize).is_multiple_of(PAGE)
                && let Some(Some(last)) = self.pages.get_mut(count - 1)
            {
                last[len as usize % PAGE..].fill(0);
            }
        }
        self.len = len;
        Ok(())
    }
}

/// The page, which is made if it is not there; `None` without memory.
fn present(page: &mut Option<Box<[u8]>>) -> Option<&mut [u8]> {
    if page.is_none() {
        let mut new = Vec::new();
        new.try_reserve_exact(PAGE).ok()?;
        new.resize(PAGE, 0);
        *page = Some(new.into_boxed_slice());
    }
    page.as_deref_mut()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, Vec<u8>),
        Read(u64, usize),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let at = 0_u64..20_000;
        prop_oneof![
            (at.clone(), proptest::collection::vec(any::<u8>(), 0..9000))
                .prop_map(|(at, data)| Step::Write(at, data)),
            (at.clone(), 0_usize..9000).prop_map(|(at, len)| Step::Read(at, len)),
            at.prop_map(Step::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn content_behaves_as_one_long_vector(steps in proptest::collection::vec(step(), 1..30)) {
            let (mut content, mut model) = (Content::default(), Vec::new());
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        prop_assert_eq!(content.write(at, &data), Ok(data.len()));
                        let at = at as usize;
                        if !data.is_empty() {
                            if model.len() < at + data.len() {
                                model.resize(at + data.len(), 0);
                            }
                            model[at..at + data.len()].copy_from_slice(&data);
                        }
                    }
                    Step::Read(at, len) => {
                        let mut buffer = vec![9; len];
                        let n = content.read(at, &mut buffer);
                        let from = model.get(at as usize..).unwrap_or_default();
                        prop_assert_eq!(&buffer[..n], &from[..len.min(from.len())]);
                    }
                    Step::SetLen(len) => {
                        content.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert_eq!(content.size(), model.len() as u64);
            }
        }
    }

    #[test]
    fn holes_take_no_memory() {
        let mut content = Content::default();
        content.write(100_000_000, b"end").unwrap();
        assert_eq!((content.size(), content.allocated()), (100_000_003, PAGE as u64));
        assert_eq!(content.write(LONGEST, b"x"), Err(Error::TooLarge));
        assert_eq!(content.write(u64::MAX, b"x"), Err(Error::TooLarge));
        content.set_len(0).unwrap();
        assert_eq!(content.allocated(), 0);
    }
}
