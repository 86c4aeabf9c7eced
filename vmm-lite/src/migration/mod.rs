//! Moving a VM between hosts.
