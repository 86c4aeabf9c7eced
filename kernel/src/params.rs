//! Boot parameters.

use alloc::{string::String, vec::Vec};
use core::net::IpAddr;

/// Own address and prefix length.
#[must_use]
pub fn ip() -> Option<(IpAddr, u8)> {
    unimplemented!()
}

/// Default router.
#[must_use]
pub fn gateway() -> Option<IpAddr> {
    unimplemented!()
}

/// Name servers, in order.
#[must_use]
pub fn dns() -> Vec<IpAddr> {
    unimplemented!()
}

/// Largest IP packet the network takes, if told.
#[must_use]
pub fn mtu() -> Option<u16> {
    unimplemented!()
}

/// Name of the VM.
#[must_use]
pub fn hostname() -> Option<String> {
    unimplemented!()
}
