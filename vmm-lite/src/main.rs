//! vmm-lite.
fn main() {}
