//! The messages of a replication connection. `REPLICATION.md` beside this crate has the bytes.

mod decoder;
mod header;
mod message;
mod records;
mod seeding;

pub use decoder::Decoder;
pub use header::{
    HEADER_SIZE, Header, Kind, MAGIC, PACKET_MAX, PAGES_MAX, RECORDS_HEAD, RECORDS_MAX, VERSION,
};
pub use message::{Message, RecordsHead, decode, records_head};
pub use records::{RECORD_MAX, put_record, split_records};
pub use seeding::{Seed, Seeding};

pub use crate::wire::WireError;
