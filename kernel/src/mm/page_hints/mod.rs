//! Memory whose content need not be kept.

pub mod bitmap;
