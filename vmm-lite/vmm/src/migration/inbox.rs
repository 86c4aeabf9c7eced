//! Received bytes that were not taken yet, contiguous.

/// Limit for room that is allocated before there is data for it: what a peer announces costs
/// nothing until it sends it.
const STEP: usize = 256 << 10;

/// A buffer that is filled at one end and emptied at the other.
#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Inbox {
    /// Number of bytes in it.
    pub fn len(&self) -> usize {
        self.to - self.from
    }

    /// The bytes in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }

    /// Takes the first `n` bytes out. They stay where they are until something is put in.
    pub fn take(&mut self, n: usize) -> &[u8] {
        let taken = &self.bytes[self.from..self.to][..n];
        self.from += n;
        taken
    }

    /// Room for `n` bytes, or for the most that is given at once, to be written to and then
    /// [`put`](Self::put).
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        let n = n.clamp(1, STEP);
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
        if self.bytes.len() - self.to < n {
            self.bytes.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
            if self.bytes.len() - self.to < n {
                self.bytes.resize(self.to + n, 0);
            }
        }
        &mut self.bytes[self.to..self.to + n]
    }

    /// `n` bytes have been written to the [`room`](Self::room).
    pub fn put(&mut self, n: usize) {
        self.to = (self.to + n).min(self.bytes.len());
    }

    /// Puts bytes in.
    pub fn extend(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.room(bytes.len());
            let n = room.len().min(bytes.len());
            room[..n].copy_from_slice(&bytes[..n]);
            self.put(n);
            bytes = &bytes[n..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_out_in_order(steps in prop::collection::vec((0_usize..5000, 0_usize..5000),
            1..60)) {
            let mut inbox = Inbox::default();
            let (mut put, mut taken) = (0_usize, 0_usize);
            let byte = |n: usize| (n % 251) as u8;
            for (more, less) in steps {
                let bytes: Vec<u8> = (put..put + more).map(byte).collect();
                inbox.extend(&bytes);
                put += more;
                let n = less.min(inbox.len());
                let expected: Vec<u8> = (taken..taken + n).map(byte).collect();
                prop_assert_eq!(inbox.take(n), &expected[..]);
                taken += n;
                prop_assert_eq!(inbox.len(), put - taken);
            }
            // Its room grows with its content, not with the total that passed through.
            prop_assert!(inbox.bytes.len() <= 2 * 60 * 5000);
        }
    }

    #[test]
    fn an_announcement_costs_little() {
        let mut inbox = Inbox::default();
        assert!(inbox.room(usize::MAX).len() <= STEP);
    }
}
