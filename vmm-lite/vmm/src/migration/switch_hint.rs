//! The content of `SwitchHint`: all that a destination can prepare before the state arrives.

use crate::{
    memory::PageSet,
    vm::{
        InvariantState,
        codec::{self, Payload},
    },
};
use migrate::wire::Run;
use serde::{Deserialize, Serialize};

/// Most runs of pages: with numbers of maximum length the message reaches its maximum length.
const RUNS_MAX: usize = 400;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub struct SwitchHint {
    /// The invariant state.
    pub invariant: InvariantState,
    /// Pages that the guest wrote recently: it will need them first.
    written: Vec<Run>,
}

impl SwitchHint {
    /// With as many of the pages as fit.
    pub fn new(invariant: InvariantState, written: &PageSet) -> Self {
        Self { invariant, written: written.runs().take(RUNS_MAX).collect() }
    }

    /// Encodes it as a payload.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(Payload::SwitchHint, self)
    }

    /// Decodes a payload; `None` if it is invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        codec::decode(Payload::SwitchHint, bytes).ok()
    }

    /// The pages, of a VM with this many.
    pub fn written(&self, pages: usize) -> PageSet {
        let mut set = PageSet::none(pages);
        for &(first, count) in &self.written {
            let end = first.saturating_add(count).min(pages as u64);
            (first..end).for_each(|page| set.insert(page as usize));
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::InvariantVcpuState;
    use migrate::wire::Kind;

    #[test]
    fn it_fits_its_message_and_leaves_out_invalid_pages() {
        let mut pages = PageSet::none(1 << 24);
        (1 << 23..1 << 24).step_by(2).for_each(|page| pages.insert(page));
        let vcpu = InvariantVcpuState::default();
        let invariant = InvariantState { vcpu, system: Default::default(), offloads: vec![7] };
        let switch_hint = SwitchHint::new(invariant, &pages);
        let bytes = switch_hint.to_bytes();
        assert!(bytes.len() as u32 <= Kind::SwitchHint.most() - 512);
        assert!(SwitchHint::from_bytes(&bytes).is_some() && SwitchHint::from_bytes(&[]).is_none());
        assert_eq!(switch_hint.written(1 << 24).len(), RUNS_MAX);
        assert_eq!(switch_hint.written((1 << 23) + 2).len(), 1);
        let written = vec![(3, u64::MAX), (u64::MAX, 2)];
        assert_eq!(
            SwitchHint { written, ..switch_hint }.written(5).iter().collect::<Vec<_>>(),
            [3, 4]
        );
    }
}
