//! Under QEMU: requests and answers as lines on the second serial port; see [`vmm_lite_interface::qemu`].

/// Looks for a line.
pub(super) fn poll() {}
