//! The control socket's requests, as any program of the user may write them.
//!
//! Input: the bytes that arrive on the socket.

use api::{Request, request::Error};
use vmm::migration::address::Address;

/// Deepest nesting that is checked; the parser has a limit of its own.
const DEEP: usize = 200;

/// Every line is a request or an error; a request is what was written; addresses are parsed or
/// refused.
pub fn check(data: &[u8]) {
    let mut lines = data;
    loop {
        let before = lines.len();
        match Request::read(&mut lines) {
            Ok(Some(request)) => {
                assert!(lines.len() < before, "a request without input");
                look(&request);
            }
            Ok(None) => return assert!(lines.is_empty()),
            Err(Error::Io(e)) => panic!("memory does not fail: {e}"),
            // The connection is closed then.
            Err(e) => return assert!(!e.to_string().is_empty()),
        }
    }
}

fn look(request: &Request) {
    let text = serde_json::to_string(request.members()).expect("what was parsed can be written");
    assert!(text.matches(['{', '[']).count() < text.len() && depth(&text) < DEEP);
    let line = text.clone() + "\n";
    let again = Request::read(&mut line.as_bytes()).expect("what was written can be read");
    if let Some(again) = again.filter(|_| !text.contains(['e', 'E', '.'])) {
        // Fractions may be printed with other digits than they were read from.
        assert_eq!(&again, request);
    }
    let _ = request.verb();
    for member in request.members().keys() {
        if let Ok(Some(time)) = request.milliseconds(member) {
            assert_eq!(request.members()[member].as_u64().map(u128::from), Some(time.as_millis()));
        }
        if let Some(address) = request.text(member).and_then(|text| text.parse::<Address>().ok()) {
            let text = address.to_string();
            assert_eq!(text.parse::<Address>().ok(), Some(address), "{text}");
        }
    }
}

fn depth(text: &str) -> usize {
    let (mut depth, mut most, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '{' | '[' if !quoted => {
                depth += 1;
                most = most.max(depth);
            }
            '}' | ']' if !quoted => depth -= 1,
            _ => {}
        }
    }
    most
}
