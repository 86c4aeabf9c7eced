//! Judges a capture: who spoke for the VM's address, in which order, and whether anybody ever said
//! something else than another one.

use crate::capture::Frame;
use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// The VM's address.
pub const ADDRESS: [u8; 4] = [10, 0, 0, 2];
/// How much of a stream is remembered to be compared: more than is ever under way.
const REMEMBERED: usize = 1 << 20;

/// What a frame of the VM is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Spoken<'a> {
    /// A segment: the client's port, the number of its first byte, flags, and the bytes.
    Segment { to: u16, first: u32, flags: u8, bytes: &'a [u8] },
    /// ARP, or another protocol.
    Other,
}

const SYN: u8 = 2;
const RST: u8 = 4;

/// What a VM said, if the frame is one of its.
fn spoken(frame: &[u8]) -> Option<Spoken<'_>> {
    let (header, rest) = frame.split_at_checked(14)?;
    match header[12..] {
        // The sender's address.
        [8, 6] => (rest.get(14..18)? == ADDRESS).then_some(Spoken::Other),
        [8, 0] => {
            if rest.get(12..16)? != ADDRESS {
                return None;
            }
            // As long as the IP header says: short frames are padded. Of a large one, whose
            // segments the receiver makes, the length is 0.
            let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
            let packet = if length == 0 { rest } else { rest.get(..length)? };
            let segment = packet.get(usize::from(rest[0] & 15) * 4..)?;
            if rest[9] != 6 {
                return Some(Spoken::Other);
            }
            let &[_, _, to0, to1, s0, s1, s2, s3, _, _, _, _, offset, flags, ..] = segment else {
                return None;
            };
            let bytes = segment.get(usize::from(offset >> 4) * 4..)?;
            let (to, first) =
                (u16::from_be_bytes([to0, to1]), u32::from_be_bytes([s0, s1, s2, s3]));
            Some(Spoken::Segment { to, first, flags, bytes })
        }
        _ => None,
    }
}

/// The bytes of a connection, as they were first sent. `None`: not captured.
#[derive(Debug, Default)]
struct Stream {
    first: u32,
    bytes: VecDeque<Option<u8>>,
}

impl Stream {
    /// Adds bytes; returns the offset of one that was another before.
    fn add(&mut self, first: u32, bytes: &[u8]) -> Option<usize> {
        if self.bytes.is_empty() {
            self.first = first;
        }
        // Numbers wrap; what lies before all that is remembered is not compared.
        let at = first.wrapping_sub(self.first).cast_signed();
        let (skip, at) = if at < 0 { (at.unsigned_abs() as usize, 0) } else { (0, at as usize) };
        let bytes = bytes.get(skip..).unwrap_or_default();
        if self.bytes.len() < at + bytes.len() {
            self.bytes.resize(at + bytes.len(), None);
        }
        let differs = bytes.iter().enumerate().find(|(n, byte)| {
            let before = self.bytes[at + n].get_or_insert(**byte);
            before != *byte
        });
        let differs = differs.map(|(n, _)| n);
        while self.bytes.len() > REMEMBERED {
            self.bytes.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        differs
    }
}

/// What was heard in one stretch of a capture.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard {
    /// Frames of the VM from each host.
    pub frames: [usize; 2],
    /// The hosts in the order in which they began to speak.
    pub order: Vec<usize>,
    /// Between the last frame of the first host and the first of the second.
    pub silence: Option<Duration>,
}

/// All that was ever said, over many stretches.
#[derive(Debug, Default)]
pub struct Voices {
    streams: HashMap<u16, Stream>,
    last: Option<Duration>,
    /// A host may repeat, with the same bytes, what it was about to send when it was frozen.
    pub repeats: bool,
    /// The VM may go back, once, to the host that has handed it over: the other one fails.
    pub returns: bool,
}

impl Voices {
    /// Judges the next stretch.
    ///
    /// # Errors
    /// If one host speaks after another one has taken over from it; if two frames say different
    /// things of the same bytes of a connection; if the VM resets a connection.
    pub fn hear(&mut self, frames: Vec<Frame>) -> Result<Heard, String> {
        let mut heard = Heard::default();
        let frames: Vec<_> = frames.into_iter().filter(|f| spoken(&f.bytes).is_some()).collect();
        for (number, frame) in frames.iter().enumerate() {
            self.frame(frame, &mut heard)
                .map_err(|e| format!("{e}:\n{}", around(&frames, number)))?;
        }
        Ok(heard)
    }

    fn frame(&mut self, frame: &Frame, heard: &mut Heard) -> Result<(), String> {
        let Some(spoken) = spoken(&frame.bytes) else { return Ok(()) };
        heard.frames[frame.host] += 1;
        if let Spoken::Segment { to, first, flags, bytes } = spoken {
            self.segment(frame, to, first, flags, bytes)?;
        }
        if heard.order.last() != Some(&frame.host) {
            if heard.order.contains(&frame.host) {
                if self.repeats {
                    return Ok(());
                }
                if self.returns && heard.order.len() == 2 {
                    heard.order.push(frame.host);
                    self.last = Some(frame.at);
                    return Ok(());
                }
                let host = frame.host;
                return Err(format!("host {host} speaks after the one that took over"));
            }
            heard.order.push(frame.host);
            if let (Some(last), 2) = (self.last, heard.order.len()) {
                heard.silence = Some(frame.at.saturating_sub(last));
            }
        }
        self.last = Some(frame.at);
        Ok(())
    }

    fn segment(
        &mut self,
        frame: &Frame,
        to: u16,
        first: u32,
        flags: u8,
        bytes: &[u8],
    ) -> Result<(), String> {
        if flags & RST != 0 {
            return Err(format!("host {} resets the connection of port {to}", frame.host));
        }
        if flags & SYN != 0 {
            // A new connection; its first byte has the number after this one.
            let stream = self.streams.entry(to).or_default();
            if stream.first != first.wrapping_add(1) {
                *stream = Stream { first: first.wrapping_add(1), bytes: VecDeque::new() };
            }
            return Ok(());
        }
        match self.streams.entry(to).or_default().add(first, bytes) {
            None => Ok(()),
            Some(at) => Err(format!(
                "host {} says something else than was said before, at byte {at} of {:?} to port \
                 {to}",
                frame.host,
                String::from_utf8_lossy(bytes)
            )),
        }
    }
}

/// The frames before and after this one, for people.
fn around(frames: &[Frame], number: usize) -> String {
    let end = frames.len().min(number + 4);
    let line = |frame: &Frame| {
        let since = frame.at.as_secs_f64() - frames[number].at.as_secs_f64();
        let said = match spoken(&frame.bytes) {
            Some(Spoken::Segment { to, first, flags, bytes }) => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
                format!("to port {to}, from {first}, flags {flags:#x}: {text:?}")
            }
            other => format!("{other:?}"),
        };
        format!("{:+9.3} ms  host {}  {said}\n", since * 1e3, frame.host)
    };
    frames[number.saturating_sub(12)..end].iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(at: u64, host: usize, first: u32, text: &str) -> Frame {
        let mut bytes = vec![0; 12];
        bytes.extend([8, 0, 0x45, 0]);
        bytes.extend((40 + text.len() as u16).to_be_bytes());
        bytes.extend([0, 0, 0, 0, 64, 6, 0, 0]);
        bytes.extend(ADDRESS);
        bytes.extend([10, 0, 0, 100]);
        bytes.extend(6379_u16.to_be_bytes());
        bytes.extend(4000_u16.to_be_bytes());
        bytes.extend(first.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 5 << 4, 16, 0, 0, 0, 0, 0, 0]);
        bytes.extend(text.as_bytes());
        // Padding, which says nothing.
        bytes.resize(bytes.len().max(60), b'!');
        Frame { at: Duration::from_millis(at), host, bytes }
    }

    fn hear(frames: &[Frame]) -> Result<Heard, String> {
        Voices::default().hear(frames.to_vec())
    }

    #[test]
    fn a_takeover_with_repetitions_is_fine() {
        let start = u32::MAX - 2;
        let heard = hear(&[
            frame(1, 0, start, ":1\r\n"),
            frame(2, 0, start.wrapping_add(4), ":2\r\n"),
            frame(9, 1, start.wrapping_add(4), ":2\r\n:3\r\n"),
        ]);
        let silence = Some(Duration::from_millis(7));
        assert_eq!(heard, Ok(Heard { frames: [2, 1], order: vec![0, 1], silence }));
    }

    #[test]
    fn two_histories_and_a_late_voice_are_found() {
        let said = hear(&[frame(1, 0, 5, ":1\r\n"), frame(2, 1, 5, ":2\r\n")]).unwrap_err();
        assert!(said.contains("at byte 1 of \":2"), "{said}");
        let late = [frame(1, 0, 5, ":1\r\n"), frame(2, 1, 9, ":2\r\n"), frame(3, 0, 5, ":1\r\n")];
        let said = hear(&late).unwrap_err();
        assert!(said.contains("host 0 speaks after"), "{said}");
    }

    #[test]
    fn an_announcement_is_a_voice_and_other_hosts_are_none() {
        let mut arp = frame(1, 1, 0, "");
        arp.bytes[12..14].copy_from_slice(&[8, 6]);
        arp.bytes[28..32].copy_from_slice(&ADDRESS);
        let mut other = frame(2, 0, 0, "");
        other.bytes[29] = 11;
        assert_eq!(hear(&[arp, other]).unwrap().frames, [0, 1]);
    }
}
