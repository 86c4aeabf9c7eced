//! Parses requests in the buffer they arrive in, however they are split into pieces.
//!
//! The parser remembers how far it got in a request, so that a long one that arrives in many pieces
//! is parsed once. It does not keep a request larger than the caller's limit: it discards its bytes
//! as they arrive, and reports the request when it ends.

use super::args::Args;
use super::inline;
use super::number::parse_i64;
use std::fmt;
use std::ops::Range;

/// Longest line: an inline request, or a length.
pub const MAX_LINE: usize = 64 * 1024;

/// Capacity for more words than this is freed after the request.
const KEPT_WORDS: usize = 1024;

/// Violations of the protocol. The connection cannot continue, because the start of the next
/// request is unknown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ProtocolError {
    /// An inline request that is too long.
    InlineTooLong,
    /// Unbalanced quotes in an inline request.
    Quotes,
    /// An array length that is too long.
    CountTooLong,
    /// An array length that is not a number, or is too large.
    InvalidCount,
    /// A string length that is too long.
    LengthTooLong,
    /// A string length that is not a number, negative or larger than allowed.
    InvalidLength,
    /// Another byte where `$` should be.
    NotAString(u8),
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Protocol error: ")?;
        match self {
            Self::InlineTooLong => f.write_str("too big inline request"),
            Self::Quotes => f.write_str("unbalanced quotes in request"),
            Self::CountTooLong => f.write_str("too big mbulk count string"),
            Self::InvalidCount => f.write_str("invalid multibulk length"),
            Self::LengthTooLong => f.write_str("too big bulk count string"),
            Self::InvalidLength => f.write_str("invalid bulk length"),
            Self::NotAString(byte) => write!(f, "expected '$', got '{}'", char::from(*byte)),
        }
    }
}

impl std::error::Error for ProtocolError {}

/// The result of [`Parser::parse`] at the start of the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// The input ends before the request does. Call again with the same input and more.
    Incomplete,
    /// A request of this many bytes; its words are [`Parser::args`].
    Request(usize),
    /// This many bytes without a request.
    Nothing(usize),
    /// This many bytes of a request that is too large to keep, and that continues after them.
    Discarded(usize),
    /// These bytes end a request that was too large to keep.
    TooLarge(usize),
}

/// Largest sizes a request may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one string; a larger one is a [`ProtocolError`].
    pub string: usize,
    /// Of a whole request; a larger one is [`Parsed::TooLarge`].
    pub request: usize,
}

/// How far the parser got in the request at the start of the input.
#[derive(Debug, Default)]
pub struct Parser {
    words: Vec<Range<usize>>,
    /// The words of an inline request, with quotes resolved.
    text: Vec<u8>,
    inline: bool,
    /// In a request: number of parsed bytes.
    position: usize,
    /// In a request: number of words still missing.
    remaining: usize,
    /// In a string: its length.
    length: Option<usize>,
    discarding: bool,
}

impl Parser {
    /// The words of the last request. `input` is the input it was found in.
    #[must_use]
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args::new(if self.inline { &self.text } else { input }, &self.words)
    }

    /// How many bytes of input would complete the arriving string, as far as known.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.length.map_or(0, |length| if self.discarding { 0 } else { self.position + length + 2 })
    }

    /// Parses the input from where the last request ended.
    ///
    /// # Errors
    /// The input is not a request and cannot become one.
    pub fn parse(&mut self, input: &[u8], limits: Limits) -> Result<Parsed, ProtocolError> {
        if self.remaining == 0 {
            match input.first() {
                None => return Ok(Parsed::Incomplete),
                Some(b'*') => {
                    if let Some(done) = self.count(input)? {
                        return Ok(done);
                    }
                }
                Some(_) => return self.inline(input),
            }
        }
        self.strings(input, limits)
    }

    fn inline(&mut self, input: &[u8]) -> Result<Parsed, ProtocolError> {
        let Some(end) = memchr::memchr(b'\n', input) else {
            return if input.len() > MAX_LINE {
                Err(ProtocolError::InlineTooLong)
            } else {
                Ok(Parsed::Incomplete)
            };
        };
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        inline::split(line, &mut self.text, &mut self.words).ok_or(ProtocolError::Quotes)?;
        self.inline = true;
        Ok(if self.words.is_empty() { Parsed::Nothing(end + 1) } else { Parsed::Request(end + 1) })
    }

    /// Parses the `*3` that begins a request. `None`: strings follow.
    fn count(&mut self, input: &[u8]) -> Result<Option<Parsed>, ProtocolError> {
        let Some((line, next)) = line(input, 0).map_err(|()| ProtocolError::CountTooLong)? else {
            return Ok(Some(Parsed::Incomplete));
        };
        let count = parse_i64(&line[1..])
            .filter(|&n| n <= i64::from(i32::MAX))
            .ok_or(ProtocolError::InvalidCount)?;
        let Ok(count @ 1..) = usize::try_from(count) else {
            return Ok(Some(Parsed::Nothing(next)));
        };
        if self.words.capacity() > KEPT_WORDS {
            self.words = Vec::new();
        }
        self.words.clear();
        self.inline = false;
        self.discarding = false;
        self.position = next;
        self.remaining = count;
        self.length = None;
        Ok(None)
    }

    fn strings(&mut self, input: &[u8], limits: Limits) -> Result<Parsed, ProtocolError> {
        while self.remaining > 0 {
            let length = match self.length {
                Some(length) => length,
                None => {
                    let header =
                        line(input, self.position).map_err(|()| ProtocolError::LengthTooLong)?;
                    let Some((line, next)) = header else { return Ok(self.between_strings()) };
                    match line.first() {
                        Some(b'$') => {}
                        other => {
                            return Err(ProtocolError::NotAString(other.copied().unwrap_or(b'\r')));
                        }
                    }
                    let length = parse_i64(&line[1..])
                        .and_then(|n| usize::try_from(n).ok())
                        .filter(|&n| n <= limits.string)
                        .ok_or(ProtocolError::InvalidLength)?;
                    self.position = next;
                    self.length = Some(length);
                    // The ranges of the words cost memory too.
                    if next + length + self.words.len() * size_of::<Range<usize>>() > limits.request
                    {
                        self.discarding = true;
                        self.words = Vec::new();
                    }
                    length
                }
            };
            let end = self.position + length;
            if input.len() < end + 2 {
                return Ok(if self.discarding {
                    self.discard(input.len(), length)
                } else {
                    Parsed::Incomplete
                });
            }
            if !self.discarding {
                self.words.push(self.position..end);
            }
            self.position = end + 2;
            self.length = None;
            self.remaining -= 1;
        }
        let consumed = std::mem::take(&mut self.position);
        Ok(if std::mem::take(&mut self.discarding) {
            Parsed::TooLarge(consumed)
        } else {
            Parsed::Request(consumed)
        })
    }

    /// The input ends between two strings. Of a request that is not kept, the parsed part can be
    /// dropped.
    fn between_strings(&mut self) -> Parsed {
        if self.discarding && self.position > 0 {
            return Parsed::Discarded(std::mem::take(&mut self.position));
        }
        Parsed::Incomplete
    }

    /// The input of `available` bytes ends in a string of `length` that is not kept: its present
    /// part can be dropped. Its line end stays until it is complete.
    fn discard(&mut self, available: usize, length: usize) -> Parsed {
        let gone = (available - self.position).min(length);
        self.length = Some(length - gone);
        match std::mem::take(&mut self.position) + gone {
            0 => Parsed::Incomplete,
            consumed => Parsed::Discarded(consumed),
        }
    }
}

/// A line from `start` on, without its end, and the start of the next one.
fn line(input: &[u8], start: usize) -> Result<Option<(&[u8], usize)>, ()> {
    let rest = input.get(start..).unwrap_or_default();
    match memchr::memchr(b'\r', rest) {
        Some(end) if rest.len() >= end + 2 => Ok(Some((&rest[..end], start + end + 2))),
        None if rest.len() > MAX_LINE => Err(()),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { string: 1000, request: 5000 };

    /// The words of a request, or `None` for one that was too large.
    type Found = Option<Vec<Vec<u8>>>;

    /// Parses `input` as it arrives in `pieces`. Returns the words of each request, or the error at
    /// the end.
    fn parse_pieces(pieces: &[&[u8]], limits: Limits) -> (Vec<Found>, Option<ProtocolError>) {
        let (mut parser, mut buffer, mut requests) = (Parser::default(), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let consumed = match parser.parse(&buffer, limits) {
                    Ok(Parsed::Incomplete) => break,
                    Ok(Parsed::Request(consumed)) => {
                        requests
                            .push(Some(parser.args(&buffer).from(0).map(<[u8]>::to_vec).collect()));
                        consumed
                    }
                    Ok(Parsed::TooLarge(consumed)) => {
                        requests.push(None);
                        consumed
                    }
                    Ok(Parsed::Nothing(consumed) | Parsed::Discarded(consumed)) => consumed,
                    Err(error) => return (requests, Some(error)),
                };
                assert!(consumed > 0, "no progress");
                buffer.drain(..consumed);
            }
        }
        (requests, None)
    }

    fn request(words: &[&str]) -> Found {
        Some(words.iter().map(|w| w.as_bytes().to_vec()).collect())
    }

    #[test]
    fn the_result_is_the_same_wherever_the_input_is_split() {
        let input = b"*2\r\n$3\r\nGET\r\n$5\r\na\r\n\0b\r\nPING \"x \
            y\"\r\n*0\r\n\r\n*-1\r\n*1\r\n$0\r\n\r\nQUIT\n";
        let want = [
            request(&["GET", "a\r\n\0b"]),
            request(&["PING", "x y"]),
            request(&[""]),
            request(&["QUIT"]),
        ];
        for first in 0..=input.len() {
            for second in first..=input.len() {
                let pieces = [&input[..first], &input[first..second], &input[second..]];
                let (got, error) = parse_pieces(&pieces, LIMITS);
                assert_eq!(
                    (got.as_slice(), error),
                    (&want[..], None),
                    "cut at {first} and {second}"
                );
            }
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(parse_pieces(&bytes, LIMITS).0, want);
    }

    #[test]
    fn a_request_too_large_to_keep_is_skipped_whole() {
        let limits = Limits { string: 1000, request: 60 };
        let long = "x".repeat(200);
        let input = format!(
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$200\r\n{long}\r\n*1\r\n$4\r\nPING\r\n*2\r\n$70\r\n\
             {}\r\n$2\r\nok\r\nPING\r\n",
            &long[..70]
        );
        let want = [None, request(&["PING"]), None, request(&["PING"])];
        for step in 1..input.len() {
            let pieces: Vec<&[u8]> = input.as_bytes().chunks(step).collect();
            let (got, error) = parse_pieces(&pieces, limits);
            assert_eq!((got.as_slice(), error), (&want[..], None), "in pieces of {step}");
        }
    }

    #[test]
    fn an_invalid_request_is_reported_as_redis_does() {
        let long = "1".repeat(MAX_LINE + 1);
        for (input, error) in [
            ("*x\r\n", "invalid multibulk length"),
            ("*2147483648\r\n", "invalid multibulk length"),
            ("*1\r\n:3\r\n", "expected '$', got ':'"),
            ("*1\r\n\r\n", "expected '$', got '\r'"),
            ("*1\r\n$-1\r\n", "invalid bulk length"),
            ("*1\r\n$1001\r\n", "invalid bulk length"),
            ("*1\r\n$1x\r\n", "invalid bulk length"),
            ("set \"a\r\n", "unbalanced quotes in request"),
            (&format!("*{long}"), "too big mbulk count string"),
            (&format!("*1\r\n${long}"), "too big bulk count string"),
            (&long, "too big inline request"),
        ] {
            let got = parse_pieces(&[input.as_bytes()], LIMITS).1.expect(input);
            assert_eq!(got.to_string(), format!("Protocol error: {error}"));
        }
    }

    #[test]
    fn a_long_string_says_how_much_it_wants() {
        let mut parser = Parser::default();
        assert_eq!(parser.parse(b"*1\r\n$100\r\nab", LIMITS), Ok(Parsed::Incomplete));
        assert_eq!(parser.wanted(), 4 + 6 + 100 + 2);
    }
}
