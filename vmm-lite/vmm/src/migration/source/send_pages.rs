//! Builds messages from pages: zero pages as numbers, the others in frames.
//!
//! A frame is copied out of guest memory before its checksum is computed: while the guest runs, the
//! page that is sent must be the one that was summed.

use crate::memory::{GuestRam, PAGE, is_zero};
use migrate::{
    source::Sent,
    wire::{
        HEADER_SIZE, Header, Kind, Message, PAGES_PER_FRAME, RUNS_PER_MESSAGE, Run,
        encode_page_frame_head,
    },
};
use std::time::Duration;

/// Most bytes before a frame's pages.
const HEAD_MAX: usize = HEADER_SIZE + 8 + PAGES_PER_FRAME * 8;

/// Messages under construction.
#[derive(Debug)]
pub struct Packer {
    zero: Vec<Run>,
    /// Numbers of the pages of the frame under construction.
    numbers: Vec<u64>,
    /// Complete messages, up to `filled`. Then, after room for a head, the pages of the frame under
    /// construction: they are copied once.
    out: Vec<u8>,
    filled: usize,
    sent: Sent,
}

impl Packer {
    /// A builder with its buffers allocated.
    #[must_use]
    pub fn new() -> Self {
        Self {
            zero: Vec::new(),
            numbers: Vec::with_capacity(PAGES_PER_FRAME),
            out: vec![0; 2 * (HEAD_MAX + PAGES_PER_FRAME * PAGE)],
            filled: 0,
            sent: Sent::default(),
        }
    }

    /// Adds a page. With `fresh` the destination's memory is known to be zero where nothing was
    /// sent before, so zero pages are not announced.
    pub fn page(&mut self, ram: &GuestRam, number: usize, fresh: bool) {
        let at = self.filled + HEAD_MAX + self.numbers.len() * PAGE;
        let room = room(&mut self.out, at, PAGE);
        let page = room.first_chunk_mut().expect("room for a page");
        if ram.read_page(number, page).is_err() {
            // Sets are as long as the memory, so this cannot happen; nothing is sent for a page
            // that does not exist.
            return;
        }
        if is_zero(page) {
            self.sent.zero += 1;
            if !fresh {
                self.zero_page(number as u64);
            }
        } else {
            self.sent.full += 1;
            self.numbers.push(number as u64);
            if self.numbers.len() == PAGES_PER_FRAME {
                self.frame();
            }
        }
    }

    /// Adds any other message after the pages.
    pub fn message(&mut self, message: &Message) {
        self.finish();
        self.append(&message.encode());
    }

    /// Whether enough has accumulated to be sent.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.filled >= PAGES_PER_FRAME * PAGE
    }

    /// Calls `send` with the accumulated bytes.
    ///
    /// # Errors
    /// The error of `send`; the accumulated bytes are lost.
    pub fn flush<E>(&mut self, send: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.frame();
        if self.filled == 0 {
            return Ok(());
        }
        self.sent.bytes += self.filled as u64;
        let filled = std::mem::take(&mut self.filled);
        send(&self.out[..filled])
    }

    /// Completes the frame under construction.
    pub fn finish(&mut self) {
        self.frame();
        if !self.zero.is_empty() {
            let zero = Message::Zero(std::mem::take(&mut self.zero));
            self.append(&zero.encode());
        }
    }

    /// Notes that nothing was sent for this long, to keep the rate.
    pub fn idled(&mut self, time: Duration) {
        self.sent.idle += time;
    }

    /// What was sent since the last call.
    pub fn take_sent(&mut self) -> Sent {
        std::mem::take(&mut self.sent)
    }

    fn zero_page(&mut self, number: u64) {
        match self.zero.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => {
                if self.zero.len() == RUNS_PER_MESSAGE {
                    self.finish();
                }
                self.zero.push((number, 1));
            }
        }
    }

    /// Adds bytes after the complete messages, while no frame is under construction.
    fn append(&mut self, bytes: &[u8]) {
        debug_assert!(self.numbers.is_empty());
        room(&mut self.out, self.filled, bytes.len()).copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    fn frame(&mut self) {
        if self.numbers.is_empty() {
            return;
        }
        let head = encode_page_frame_head(&self.numbers);
        let pages = self.filled + HEAD_MAX..self.filled + HEAD_MAX + self.numbers.len() * PAGE;
        let data = self.filled + HEADER_SIZE + head.len();
        let end = data + pages.len();
        // A frame that is not full has a shorter head.
        if data != pages.start {
            self.out.copy_within(pages, data);
        }
        let mut sum = crc32fast::Hasher::new();
        sum.update(&head);
        sum.update(&self.out[data..end]);
        let length = (end - self.filled - HEADER_SIZE) as u32;
        debug_assert!(length <= Kind::Pages.most());
        let header: [u8; HEADER_SIZE] = Header::of(Kind::Pages, length, sum.finalize()).encode();
        let (to_header, to_head) = self.out[self.filled..data].split_at_mut(HEADER_SIZE);
        to_header.copy_from_slice(&header);
        to_head.copy_from_slice(&head);
        self.filled = end;
        self.numbers.clear();
    }
}

/// Room for `n` bytes at `at`.
fn room(out: &mut Vec<u8>, at: usize, n: usize) -> &mut [u8] {
    if out.len() < at + n {
        out.resize(at + n, 0);
    }
    &mut out[at..at + n]
}

#[cfg(test)]
mod tests {
    use super::*;
    use migrate::wire::{PageFrame, decode};
    use proptest::prelude::*;

    const PAGES: usize = 2048;

    /// The content of `bytes`, in order: pages by number with their first byte, or zero ones.
    fn unpack(mut bytes: &[u8]) -> Vec<(usize, u8)> {
        let mut pages = Vec::new();
        while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() {
            let header = Header::decode(header).unwrap();
            let (body, rest) = rest.split_at(header.length as usize);
            assert_eq!(crc32fast::hash(body), header.checksum);
            if header.kind == Kind::Pages {
                let frame = PageFrame::decode(body, PAGES).unwrap();
                pages.extend(frame.iter().map(|(number, page)| {
                    assert!(page.iter().all(|byte| *byte == page[0]));
                    (number, page[0])
                }));
            } else {
                match decode(&header, body, PAGES).unwrap() {
                    Message::Zero(runs) => pages.extend(
                        runs.iter()
                            .flat_map(|&(first, n)| first..first + n)
                            .map(|n| (n as usize, 0)),
                    ),
                    Message::RoundEnd(7) => {}
                    other => panic!("{other:?}"),
                }
            }
            bytes = rest;
        }
        assert!(bytes.is_empty());
        pages
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Each page is there once with its content, whichever pages are zero, and wherever
        /// messages are added in between and it is sent.
        #[test]
        fn pages_arrive_once_and_unchanged(
            step in 1_usize..4, zero_every in 2_usize..200, message_every in 30_usize..3000,
                fresh: bool,
        ) {
            let ram = GuestRam::new((PAGES * PAGE) as u64).unwrap();
            let content = |n: usize|
                if n.is_multiple_of(zero_every) { 0 } else { (n % 255 + 1) as u8 };
            let memory = ram.writable_while_stopped();
            (0..PAGES).for_each(|n| memory.write_page(n, &[content(n); PAGE]).unwrap());
            let (mut packer, mut bytes) = (Packer::new(), Vec::new());
            let mut take = |packer: &mut Packer| packer.flush(|more| {
                bytes.extend_from_slice(more);
                Ok::<(), ()>(())
            });
            for n in (0..PAGES).step_by(step) {
                packer.page(&ram, n, fresh);
                if n % message_every == 1 { packer.message(&Message::RoundEnd(7)); }
                if packer.is_full() { take(&mut packer).unwrap(); }
            }
            packer.finish();
            take(&mut packer).unwrap();
            let sent = packer.take_sent();
            prop_assert_eq!(sent.bytes, bytes.len() as u64);
            let mut found = unpack(&bytes);
            found.sort_unstable();
            let all = (0..PAGES).step_by(step).map(|n| (n, content(n)));
            let expected: Vec<_> = all.filter(|(_, byte)| !fresh || *byte != 0).collect();
            prop_assert_eq!(found, expected);
            prop_assert!(packer.out.len() <= 4 * (HEAD_MAX + PAGES_PER_FRAME * PAGE), "it is \
                bounded");
        }
    }
}
