//! What a guest's queues name, determined from its memory without the code under test.

use std::ops::Range;

use vmm::devices::net::NetState;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Most descriptors of a chain or a table that are followed.
const MOST: usize = 256;

/// What both queues name before a pass.
#[derive(Debug, Default)]
pub struct Named {
    /// Ranges to which the device may write.
    writable: Vec<Range<u64>>,
    /// Packets to send: the ranges of their parts in memory.
    pub packets: Vec<Vec<Range<usize>>>,
    /// The device's writes change what it reads, so that the result cannot be predicted.
    pub tangled: bool,
}

#[derive(Clone, Copy)]
struct Descriptor {
    at: u64,
    len: u32,
    flags: u16,
    next: u16,
}

impl Named {
    pub fn of(state: &NetState, memory: &[u8]) -> Self {
        let mut named = Self::default();
        let mut read = Vec::new();
        for (n, queue) in state.transport.queues.iter().enumerate() {
            let size = u64::from(queue.size);
            let rings = [(queue.desc_table, 16 * size), (queue.avail_ring, 6 + 2 * size)];
            read.extend(rings.map(|(at, len)| range(at, len)));
            named.writable.push(range(queue.used_ring, 6 + 8 * size));
            for index in 0..queue.size {
                let Some(descriptor) = Descriptor::at(memory, queue.desc_table, index) else {
                    continue;
                };
                named.buffer(descriptor, n == 0, &mut read);
                if descriptor.flags & INDIRECT != 0 {
                    read.push(descriptor.range());
                    for index in 0..(descriptor.len / 16).min(MOST as u32) {
                        if let Some(inner) = Descriptor::at(memory, descriptor.at, index as u16) {
                            named.buffer(inner, n == 0, &mut read);
                        }
                    }
                }
            }
            if n == 1 {
                let queued = word(memory, queue.avail_ring.wrapping_add(2)).unwrap_or(0);
                let count = queued.wrapping_sub(queue.next_avail);
                for k in 0..count.min(queue.size) {
                    let slot = u64::from(queue.next_avail.wrapping_add(k) % queue.size);
                    let entry = queue.avail_ring.wrapping_add(4 + 2 * slot);
                    let head = word(memory, entry).unwrap_or(0);
                    named.packets.push(packet(memory, queue.desc_table, queue.size, head));
                }
            }
        }
        let overlap = |a: &Range<u64>, b: &Range<u64>| a.start < b.end && b.start < a.end;
        named.tangled = named.writable.iter().any(|w| read.iter().any(|r| overlap(w, r)));
        named
    }

    fn buffer(&mut self, descriptor: Descriptor, receive: bool, read: &mut Vec<Range<u64>>) {
        if descriptor.flags & WRITE == 0 {
            read.push(descriptor.range());
        } else if receive {
            self.writable.push(descriptor.range());
        }
    }

    /// Whether `bytes` are those of a packet, in the memory from before the pass.
    pub fn is_packet(parts: &[Range<usize>], memory: &[u8], mut bytes: &[u8]) -> bool {
        for part in parts {
            let part = &memory[part.clone()];
            let Some(rest) = bytes.strip_prefix(part) else { return false };
            bytes = rest;
        }
        bytes.is_empty()
    }

    pub fn may_write(&self, at: u64) -> bool {
        self.writable.iter().any(|range| range.contains(&at))
    }
}

impl Descriptor {
    fn at(memory: &[u8], table: u64, index: u16) -> Option<Self> {
        let start = usize::try_from(table.checked_add(16 * u64::from(index))?).ok()?;
        let bytes = memory.get(start..start.checked_add(16)?)?;
        let u16_at = |n: usize| u16::from_le_bytes([bytes[n], bytes[n + 1]]);
        Some(Self {
            at: u64::from_le_bytes(bytes[..8].try_into().ok()?),
            len: u32::from_le_bytes(bytes[8..12].try_into().ok()?),
            flags: u16_at(12),
            next: u16_at(14),
        })
    }

    fn range(&self) -> Range<u64> {
        range(self.at, self.len.into())
    }
}

fn range(at: u64, len: u64) -> Range<u64> {
    at..at.saturating_add(len)
}

fn word(memory: &[u8], at: u64) -> Option<u16> {
    let at = usize::try_from(at).ok()?;
    let bytes = memory.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The parts of a chain, as far as it is valid: the device sends no invalid one.
fn packet(memory: &[u8], table: u64, size: u16, head: u16) -> Vec<Range<usize>> {
    let (mut table, mut size, mut index) = (table, size, head);
    let mut parts = Vec::new();
    for _ in 0..=MOST {
        let Some(descriptor) = Descriptor::at(memory, table, index).filter(|_| index < size) else {
            break;
        };
        if descriptor.flags & INDIRECT != 0 {
            (table, size, index) = (descriptor.at, (descriptor.len / 16) as u16, 0);
            continue;
        }
        let range = descriptor.range();
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end))
        else {
            break;
        };
        if memory.get(start..end).is_none() {
            break;
        }
        parts.push(start..end);
        if descriptor.flags & NEXT == 0 {
            break;
        }
        index = descriptor.next;
    }
    parts
}
