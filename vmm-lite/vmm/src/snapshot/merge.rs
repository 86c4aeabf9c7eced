//! Merges a whole snapshot and a difference to it.

use super::{
    Error, load,
    saved_vm::SavedVm,
    sink::{FileSink, draw_id},
};
use crate::memory::PageSet;
use migrate::snapshot::{Content, GROUP, Header};
use std::fs::File;

/// Writes `base` with `difference` applied to `output`. Both are checked whole.
///
/// # Errors
/// [`Error`]: `output` must be discarded then.
pub fn merge(base: File, difference: File, output: File) -> Result<Header, Error> {
    let (base, difference) = (load::open(base)?, load::open(difference)?);
    if base.header().base.is_some() {
        return Err(Error::BaseIsDifference);
    }
    if difference.header().base != Some(base.header().as_base()) {
        return Err(Error::WrongBase);
    }
    let pages = base.header().pages();
    if difference.header().pages() != pages {
        return Err(Error::BaseSize);
    }
    let guest = SavedVm::decode(difference.identity(), difference.state())?;
    let mut sink = FileSink::new(output, pages as usize, None)?;
    for group in 0..base.groups() {
        let (old, new) = (base.block(group)?, difference.block(group)?);
        let first = group as u64 * GROUP;
        for page in first..(first + GROUP).min(pages) {
            let mut content = [0; migrate::PAGE];
            match (old.content(page), new.content(page)) {
                (before, Content::Absent) if before != Content::Absent => {
                    base.page(page, before, &mut content)?;
                }
                (_, now @ Content::Data { .. }) => difference.page(page, now, &mut content)?,
                _ => continue,
            }
            sink.page(page as usize, &content)?;
        }
    }
    // The parts that the merged snapshot does not use must be valid too: they may be the only sign
    // that the file is damaged.
    base.verify()?;
    let notes = difference.header().notes.unwrap_or_default();
    let (header, _) = sink.finish(draw_id()?, &guest, &PageSet::none(pages as usize), notes)?;
    Ok(header)
}
