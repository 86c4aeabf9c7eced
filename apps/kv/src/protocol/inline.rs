//! Inline requests: a line of words, as typed into telnet, with quotes and escapes.

use std::ops::Range;

/// Splits `line` into words. Overwrites `text` and `words`; the words are ranges of `text`. `None`:
/// the quotes are not balanced, or a closing one is followed by something.
#[must_use]
pub fn split(line: &[u8], text: &mut Vec<u8>, words: &mut Vec<Range<usize>>) -> Option<()> {
    text.clear();
    words.clear();
    let mut rest = line;
    loop {
        while let [b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C, tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(());
        }
        let start = text.len();
        rest = word(rest, text)?;
        words.push(start..text.len());
    }
}

/// Appends one word to `text`. Returns what follows it.
fn word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => {
                return Some(rest.get(1..).unwrap_or_default());
            }
            [quote @ (b'"' | b'\''), tail @ ..] => {
                let after = if *quote == b'"' {
                    double_quoted(tail, text)?
                } else {
                    single_quoted(tail, text)?
                };
                // A closing quote ends the word.
                return match after {
                    [] => Some(after),
                    [byte, ..] if byte.is_ascii_whitespace() || *byte == 0x0B => Some(after),
                    _ => None,
                };
            }
            [byte, tail @ ..] => {
                text.push(*byte);
                rest = tail;
            }
        }
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', hi, lo, tail @ ..]
                if hi.is_ascii_hexdigit() && lo.is_ascii_hexdigit() =>
            {
                text.push(hex(*hi) * 16 + hex(*lo));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                text.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [b'"', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                text.push(*byte);
                tail
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', tail @ ..] => {
                text.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return Some(tail),
            [byte, tail @ ..] => {
                text.push(*byte);
                tail
            }
            [] => return None,
        }
    }
}

fn hex(digit: u8) -> u8 {
    (digit as char).to_digit(16).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<String>> {
        let (mut text, mut words) = (Vec::new(), Vec::new());
        split(line.as_bytes(), &mut text, &mut words)?;
        Some(words.into_iter().map(|w| String::from_utf8_lossy(&text[w]).into_owned()).collect())
    }

    #[test]
    fn words_quotes_and_escapes() {
        for (line, want) in [
            ("", Some(vec![])),
            ("  \t ", Some(vec![])),
            ("set  a b\r", Some(vec!["set", "a", "b"])),
            (r#"set "a b" 'c d'"#, Some(vec!["set", "a b", "c d"])),
            (r#""\x41\n\"\q" x"#, Some(vec!["A\n\"q", "x"])),
            (r"'it\'s' '\n'", Some(vec!["it's", r"\n"])),
            (r#"a"b c""#, Some(vec!["ab c"])),
            (r#""" ''"#, Some(vec!["", ""])),
            (r#""a"#, None),
            ("'a", None),
            (r#""a"b"#, None),
            ("'a'b", None),
        ] {
            let got = words(line);
            assert_eq!(
                got.as_ref().map(|w| w.iter().map(String::as_str).collect()),
                want,
                "{line}"
            );
        }
    }
}
