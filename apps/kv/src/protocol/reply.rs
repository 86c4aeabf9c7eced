//! Replies, written directly into the connection's output in the version of RESP that the client
//! chose.

use super::number::format_g17;

/// A destination for replies. When the output exceeds its limit, or memory ends, nothing more is
/// written and [`overflowed`](Self::overflowed) returns `true`: the connection cannot continue, as
/// with Redis' output buffer limits.
#[derive(Debug)]
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    limit: usize,
    resp3: bool,
    overflowed: bool,
}

impl<'a> Reply<'a> {
    /// Replies appended to `out`, which may not become longer than `limit`.
    pub fn new(out: &'a mut Vec<u8>, limit: usize, resp3: bool) -> Self {
        Self { out, limit, resp3, overflowed: false }
    }

    /// Whether output was lost.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }

    /// Changes the version for later replies.
    pub fn set_resp3(&mut self, resp3: bool) {
        self.resp3 = resp3;
    }

    /// Whether the client speaks RESP3.
    #[must_use]
    pub fn resp3(&self) -> bool {
        self.resp3
    }

    /// Length of the output so far, for [`truncate`](Self::truncate).
    #[must_use]
    pub fn mark(&self) -> usize {
        self.out.len()
    }

    /// Removes what was written after `mark`.
    pub fn truncate(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// Bytes that already are a reply.
    pub fn raw(&mut self, bytes: &[u8]) {
        if self.out.capacity() - self.out.len() < bytes.len() && !self.grow(bytes.len()) {
            return;
        }
        if !self.overflowed {
            self.out.extend_from_slice(bytes);
        }
    }

    #[cold]
    fn grow(&mut self, more: usize) -> bool {
        self.overflowed |=
            self.out.len() + more > self.limit || self.out.try_reserve(more).is_err();
        !self.overflowed
    }

    fn header(&mut self, kind: u8, number: i64) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        let mut line = [0; 24];
        line[0] = kind;
        line[1..=digits.len()].copy_from_slice(digits);
        line[digits.len() + 1..digits.len() + 3].copy_from_slice(b"\r\n");
        self.raw(&line[..digits.len() + 3]);
    }

    fn count(&mut self, kind: u8, count: usize) {
        self.header(kind, i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `+text`.
    pub fn simple(&mut self, text: &str) {
        self.raw(b"+");
        self.raw(text.as_bytes());
        self.raw(b"\r\n");
    }

    /// `+OK`.
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// `-text`. Line ends in the text, which may originate from the client, become spaces.
    pub fn error(&mut self, text: &str) {
        self.raw(b"-");
        if text.contains(['\r', '\n']) {
            self.raw(text.replace(['\r', '\n'], " ").as_bytes());
        } else {
            self.raw(text.as_bytes());
        }
        self.raw(b"\r\n");
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) {
        self.header(b':', value);
    }

    /// A length or count as an integer.
    pub fn length(&mut self, value: usize) {
        self.count(b':', value);
    }

    /// 1 or 0, in both versions: Redis' usual answer to a yes-no question.
    pub fn flag(&mut self, value: bool) {
        self.raw(if value { b":1\r\n" } else { b":0\r\n" });
    }

    /// A string.
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.count(b'$', bytes.len());
        self.raw(bytes);
        self.raw(b"\r\n");
    }

    /// A string, or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// Text for people, as in INFO.
    pub fn verbatim(&mut self, text: &str) {
        if self.resp3 {
            self.count(b'=', text.len() + 4);
            self.raw(b"txt:");
            self.raw(text.as_bytes());
            self.raw(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// Null in place of a value.
    pub fn null(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// Null in place of an array.
    pub fn null_array(&mut self) {
        self.raw(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// A floating point number.
    pub fn double(&mut self, value: f64) {
        let text = format_g17(value);
        if self.resp3 {
            self.raw(b",");
            self.raw(text.as_bytes());
            self.raw(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    /// Begins an array of `count` replies.
    pub fn array(&mut self, count: usize) {
        self.count(b'*', count);
    }

    /// Begins a map of `count` pairs of replies.
    pub fn map(&mut self, count: usize) {
        if self.resp3 { self.count(b'%', count) } else { self.count(b'*', count * 2) }
    }

    /// Begins a set of `count` replies.
    pub fn set(&mut self, count: usize) {
        self.count(if self.resp3 { b'~' } else { b'*' }, count);
    }

    /// An array of strings.
    pub fn bulks<T: AsRef<[u8]>>(&mut self, items: impl ExactSizeIterator<Item = T>) {
        self.array(items.len());
        items.for_each(|item| self.bulk(item.as_ref()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(resp3: bool, f: impl FnOnce(&mut Reply<'_>)) -> String {
        let mut out = Vec::new();
        f(&mut Reply::new(&mut out, 1000, resp3));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_kind_in_both_versions() {
        let all = |r: &mut Reply<'_>| {
            r.ok();
            r.integer(i64::MIN);
            r.bulk(b"a\r\n");
            r.null();
            r.null_array();
            r.double(1.5);
            r.map(1);
            r.set(2);
            r.verbatim("hi");
        };
        assert_eq!(
            written(false, all),
            "+OK\r\n:-9223372036854775808\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n$3\r\n1.5\r\n*2\r\n\
             *2\r\n$2\r\nhi\r\n"
        );
        assert_eq!(
            written(true, all),
            "+OK\r\n:-9223372036854775808\r\n$3\r\na\r\n\r\n_\r\n_\r\n,1.5\r\n%1\r\n~2\r\n\
             =6\r\ntxt:hi\r\n"
        );
    }

    #[test]
    fn an_error_stays_on_its_line() {
        assert_eq!(written(false, |r| r.error("ERR a\r\n+OK")), "-ERR a  +OK\r\n");
    }

    #[test]
    fn output_beyond_the_limit_is_lost_and_reported() {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, 100, false);
        reply.bulk(&[b'x'; 50]);
        assert!(!reply.overflowed());
        reply.bulk(&[b'x'; 500]);
        assert!(reply.overflowed());
        assert!(out.len() <= 100);
    }
}
