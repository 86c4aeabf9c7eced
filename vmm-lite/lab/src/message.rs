//! Messages of a move in plaintext, for tests that play one side.

use migrate::wire::{HEADER_SIZE, Header, Message, decode};
use std::{io::Read, net::TcpStream};

/// The next message of a move of a VM with `pages` pages; `None` at the end of the connection.
///
/// # Panics
/// If an invalid message arrives.
#[must_use]
pub fn next_message(stream: &mut TcpStream, pages: usize) -> Option<Message> {
    let mut header = [0; HEADER_SIZE];
    stream.read_exact(&mut header).ok()?;
    let header = Header::decode(&header).expect("a valid header");
    let mut body = vec![0; header.length as usize];
    stream.read_exact(&mut body).expect("the body of a message");
    Some(decode(&header, &body, pages).expect("a valid message"))
}
