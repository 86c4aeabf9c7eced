//! Puts pages into messages: zero ones as numbers, the others in frames.
//!
//! A frame is copied out of guest memory before its checksum is made: while the guest runs, the page that is sent must be the
//! one that was summed.

use crate::memory::{GuestRam, PAGE, is_zero};
use migrate::{
    source::Sent,
    wire::{
        HEADER_SIZE, Header, Kind, Message, PAGES_PER_FRAME, RUNS_PER_MESSAGE, Run,
        encode_page_frame_head,
    },
};
use std::time::Duration;

/// Messages in the making.
#[derive(Debug)]
pub struct Packer {
    numbers: Vec<u64>,
    data: Vec<u8>,
    zero: Vec<Run>,
    out: Vec<u8>,
    sent: Sent,
}

impl Packer {
    /// One with its buffers ready.
    #[must_use]
    pub fn new() -> Self {
        Self {
            numbers: Vec::with_capacity(PAGES_PER_FRAME),
            data: Vec::with_capacity(PAGES_PER_FRAME * PAGE),
            zero: Vec::new(),
            out: Vec::with_capacity(2 * PAGES_PER_FRAME * (PAGE + 8)),
            sent: Sent::default(),
        }
    }

    /// Puts a page in. With `fresh` the destination's memory is known to be zero where nothing was sent before, so that zero pages need no word.
    pub fn page(&mut self, ram: &GuestRam, number: usize, fresh: bool) {
        let mut page = [0; PAGE];
        if ram.read_page(number, &mut page).is_err() {
            // Sets are as long as the memory, so this cannot be; nothing is sent for a page that is not there.
            return;
        }
        if is_zero(&page) {
            self.sent.zero += 1;
            if !fresh {
                self.zero_page(number as u64);
            }
        } else {
            self.sent.full += 1;
            self.numbers.push(number as u64);
            self.data.extend_from_slice(&page);
            if self.numbers.len() == PAGES_PER_FRAME {
                self.frame();
            }
        }
    }

    /// Puts any other message behind the pages.
    pub fn message(&mut self, message: &Message) {
        self.frame();
        self.zero_runs();
        self.out.extend(message.encode());
    }

    /// Whether so much has gathered that it should be sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.out.len() >= PAGES_PER_FRAME * PAGE
    }

    /// Calls `send` with what has gathered.
    ///
    /// # Errors
    /// What `send` says; what has gathered is gone.
    pub fn flush<E>(&mut self, send: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.sent.bytes += self.out.len() as u64;
        let sent = send(&self.out);
        self.out.clear();
        sent
    }

    /// Finishes what has been begun.
    pub fn finish(&mut self) {
        self.frame();
        self.zero_runs();
    }

    /// Nothing was sent for so long, to keep the pace.
    pub fn idled(&mut self, time: Duration) {
        self.sent.idle += time;
    }

    /// What was sent since this was last asked.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    fn zero_page(&mut self, number: u64) {
        match self.zero.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => {
                if self.zero.len() == RUNS_PER_MESSAGE {
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
}
