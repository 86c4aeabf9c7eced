//! Descriptors, and what they stand for.

pub mod descriptors;
