//! Sends pages: zero ones as numbers, the others in frames.
//!
//! A frame is copied out of guest memory before its checksum is made: while the guest runs, the page that is sent must be the
//! one that was summed.

use super::connection::{Connection, LinkError};
use crate::memory::{GuestRam, PAGE, is_zero};
use migrate::{
    pages::Pages,
    wire::{HEADER_SIZE, Header, Kind, Message, PAGES_PER_FRAME, encode_page_frame_head},
};

/// Most runs of zero pages in one message: far below what it may hold.
const RUNS: usize = 1000;

/// A sender with its buffers.
#[derive(Debug)]
pub struct PageSender {
    numbers: Vec<u64>,
    data: Vec<u8>,
    zero: Vec<(u64, u64)>,
    out: Vec<u8>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    /// Pages with content.
    pub full: u64,
    /// Zero pages.
    pub zero: u64,
}

impl PageSender {
    /// One with its buffers ready.
    #[must_use]
    pub fn new() -> Self {
        Self {
            numbers: Vec::with_capacity(PAGES_PER_FRAME),
            data: Vec::with_capacity(PAGES_PER_FRAME * PAGE),
            zero: Vec::new(),
            out: Vec::with_capacity(2 * PAGES_PER_FRAME * (PAGE + 8)),
        }
    }

    /// Sends `pages`. With `fresh` the destination's memory is known to be zero where nothing was sent before, so zero pages
    /// need no word. Messages gather in one buffer; `last` goes behind them in the same write.
    ///
    /// # Errors
    /// [`LinkError::Io`].
    pub fn send(
        &mut self,
        connection: &mut Connection,
        ram: &GuestRam,
        pages: &Pages,
        fresh: bool,
        last: &Message,
    ) -> Result<Sent, LinkError> {
        let mut sent = Sent::default();
        let mut page = [0; PAGE];
        for number in pages.iter() {
            if ram.read_page(number, &mut page).is_err() {
                // The set is as long as the memory, so this cannot be; nothing is sent for a page that is not there.
                continue;
            }
            if is_zero(&page) {
                sent.zero += 1;
                if !fresh {
                    self.zero_page(number as u64);
                }
            } else {
                sent.full += 1;
                self.numbers.push(number as u64);
                self.data.extend_from_slice(&page);
                if self.numbers.len() == PAGES_PER_FRAME {
                    self.frame();
                    self.flush(connection)?;
                }
            }
        }
        self.frame();
        self.zero_runs();
        self.out.extend(last.encode());
        self.flush(connection)?;
        Ok(sent)
    }

    fn zero_page(&mut self, number: u64) {
        match self.zero.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => {
                if self.zero.len() == RUNS {
                    self.zero_runs();
                }
                self.zero.push((number, 1));
            }
        }
    }

    fn zero_runs(&mut self) {
        if !self.zero.is_empty() {
            self.out.extend(Message::Zero(std::mem::take(&mut self.zero)).encode());
        }
    }

    fn frame(&mut self) {
        if self.numbers.is_empty() {
            return;
        }
        let head = encode_page_frame_head(&self.numbers);
        let mut sum = crc32fast::Hasher::new();
        sum.update(&head);
        sum.update(&self.data);
        let length = (head.len() + self.data.len()) as u32;
        debug_assert!(length <= Kind::Pages.most());
        let header: [u8; HEADER_SIZE] = Header::of(Kind::Pages, length, sum.finalize()).encode();
        self.out.extend_from_slice(&header);
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(&self.data);
        self.numbers.clear();
        self.data.clear();
    }

    fn flush(&mut self, connection: &mut Connection) -> Result<(), LinkError> {
        let sent = connection.send_raw(&self.out);
        self.out.clear();
        sent
    }
}
