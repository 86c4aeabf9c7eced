//! Both machines, fed any messages and any answers to what they ask for, at any time.
//!
//! Input: which machine, and events as [`arbitrary`] makes them of bytes. Messages go through the wire's encoding.

mod destination;
mod said;
mod source;

use arbitrary::Unstructured;
use migrate::{MoveId, ReceiverId};

/// Pages of the VM.
const PAGES: usize = 70;
const ID: MoveId = [1; 16];
const ME: ReceiverId = [2; 16];

/// Neither machine panics, goes on after its end, or breaks the commit rule.
pub fn check(data: &[u8]) {
    let mut input = Unstructured::new(data);
    if input.arbitrary().unwrap_or(true) {
        source::feed(&mut input);
    } else {
        destination::feed(&mut input);
    }
}
