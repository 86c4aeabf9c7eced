//! RESP in both directions: requests are parsed in place, replies are written into one buffer.

pub mod args;
pub mod inline;
pub mod number;
pub mod parser;
pub mod reply;

pub use args::{Args, OwnedArgs};
pub use parser::{Parsed, Parser, ProtocolError};
pub use reply::Reply;
