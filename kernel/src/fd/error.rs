//! Why a call on a descriptor fails.

use crate::{fs, net};

/// A positive number of [`hermit_abi::errno`](mod@hermit_abi::errno); they are Linux's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl From<net::Error> for Errno {
    fn from(error: net::Error) -> Self {
        Self(error.errno())
    }
}

impl From<fs::Error> for Errno {
    fn from(error: fs::Error) -> Self {
        Self(error.errno())
    }
}
