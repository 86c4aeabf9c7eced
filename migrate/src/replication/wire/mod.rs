//! The messages of a replication connection. `REPLICATION.md` beside this crate has the bytes.

mod decoder;
mod header;
mod message;

pub use decoder::Decoder;
pub use header::{HEADER_SIZE, Header, Kind, MAGIC, RECORDS_HEAD, RECORDS_MAX, VERSION};
pub use message::{Message, RecordsHead, decode, records_head};

pub use crate::wire::WireError;
