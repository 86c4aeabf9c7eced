//! Where nothing stands still: hooks are kept, as they would be elsewhere, and never called.

use crate::{Quiesce, Resume};

pub fn on_quiesce(hook: Box<dyn FnMut(&Quiesce) + Send>) {
    // What it holds lives on, as under vmm-lite.
    Box::leak(hook);
}

pub fn on_resume(hook: Box<dyn FnMut(&Resume) + Send>) {
    Box::leak(hook);
}
