//! vmm-lite.
