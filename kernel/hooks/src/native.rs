//! Natively there are no pauses of a VM: hooks are kept, as in a guest, and never called.

use crate::{Quiesce, Resume};

pub fn on_quiesce(hook: Box<dyn FnMut(&Quiesce) + Send>) {
    // What it holds is kept, as under vmm-lite.
    Box::leak(hook);
}

pub fn on_resume(hook: Box<dyn FnMut(&Resume) + Send>) {
    Box::leak(hook);
}
