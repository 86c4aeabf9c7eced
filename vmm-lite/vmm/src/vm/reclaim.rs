//! Memory that the guest does not use.

use super::Vm;
use crate::memory::PageSet;
use std::time::{Duration, Instant};

/// The guest has returned memory, on request and while it ran.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reclaimed(
    /// Number of the last quiesce request before that.
    u32,
);

impl Vm {
    /// Asks the guest to return memory that it does not use, in time for
    /// [`page_hints`](Self::page_hints). The guest continues to run.
    pub fn request_reclaim(&self) {
        self.shared.vcpus.request_reclaim();
    }

    /// Waits until the guest has answered [`request_reclaim`](Self::request_reclaim), at most
    /// `timeout`. `None`: it has not answered.
    pub fn wait_reclaimed(&self, timeout: Duration) -> Option<Reclaimed> {
        self.shared.vcpus.wait_reclaimed(Instant::now() + timeout).map(Reclaimed)
    }

    /// Pages that have lost their content: they matter again only when they change. For a running
    /// guest that was not asked to quiesce since its answer: while it is quiescent the hints
    /// include pages that the VMM writes to for it, and afterwards those matter, with their current
    /// content.
    #[must_use]
    pub fn lost_content(&self, since: Reclaimed) -> PageSet {
        let pages = self.page_hints();
        if self.shared.vcpus.requests.quiesce_number() == since.0 {
            pages
        } else {
            PageSet::none(pages.limit())
        }
    }

    /// The pages whose content does not matter now. While the guest runs this can change at any
    /// time.
    #[must_use]
    pub fn page_hints(&self) -> PageSet {
        self.ram().page_hints(self.ram().control_page())
    }
}
