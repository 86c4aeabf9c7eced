//! migrate.
#![forbid(unsafe_code)]
