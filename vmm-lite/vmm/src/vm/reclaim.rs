//! Memory that the guest does not use.

use super::Vm;
use crate::memory::PageSet;
use std::time::{Duration, Instant};

/// The guest has given up memory, when asked to and while it ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reclaimed(
    /// Number of the last quiesce request before it did.
    u32,
);

impl Vm {
    /// Asks the guest to give up memory that it does not use, in time for
    /// [`page_hints`](Self::dont_care). It runs on.
    pub fn request_reclaim(&self) {
        self.shared.request_reclaim();
    }

    /// Waits until the guest has answered [`request_reclaim`](Self::ask_to_give_up), at most
    /// `timeout`. `None`: it has not.
    pub fn wait_reclaimed(&self, timeout: Duration) -> Option<Reclaimed> {
        self.shared.wait_reclaimed(Instant::now() + timeout).map(Reclaimed)
    }

    /// Pages that have lost their content: they matter again only when they change. Of a guest
    /// that runs, and that was not asked to quiesce since it has answered: while it is quiescent
    /// also those do not matter that the VMM writes to for it, and once it is not they do, as they
    /// are.
    #[must_use]
    pub fn lost_content(&self, since: Reclaimed) -> PageSet {
        let pages = self.page_hints();
        if self.shared.quiesce_number() == since.0 { pages } else { PageSet::none(pages.limit()) }
    }

    /// The pages whose content does not matter now. While the guest runs this can change at any
    /// time.
    #[must_use]
    pub fn page_hints(&self) -> PageSet {
        self.ram().page_hints(self.ram().control_page())
    }
}
