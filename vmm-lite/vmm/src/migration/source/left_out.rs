//! Pages that were not sent because of the guest's page hints.

use crate::memory::{Complete, PAGE, is_zero};
use migrate::page_set::PageSet;

/// Bytes of those of `pages` that are not zero: of a stopped VM that nothing waits for any more, as
/// it reads all of them.
pub(super) fn held_by(memory: Complete<'_>, pages: &PageSet) -> Option<u64> {
    let mut held = pages.clone();
    match memory.touched() {
        Ok(touched) => held.keep(&touched),
        Err(e) => {
            tracing::warn!("the size of the left-out pages is unknown: {e}");
            return None;
        }
    }
    let mut page = [0; PAGE];
    let mut holds =
        |number: &usize| memory.ram().read_page(*number, &mut page).is_ok() && !is_zero(&page);
    Some(held.iter().filter(|number| holds(number)).count() as u64 * PAGE as u64)
}
