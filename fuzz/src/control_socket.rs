//! The control socket's requests, as any program of the user may write them.
//!
//! Input: the bytes that arrive on the socket.

use api::{Request, request::Error, verb::Migrate};
use vmm::migration::address::Address;

/// Every line is a request or an error; a request is written as it was read; addresses are parsed
/// or refused.
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
            Err(e) => {
                assert!(!e.to_string().is_empty());
                // The connection is closed then.
                if e.closes() {
                    return;
                }
            }
        }
    }
}

fn look(request: &Request) {
    let text = serde_json::to_string(request).expect("what was parsed can be written");
    let again = Request::read(&mut text.as_bytes()).expect("what was written can be read");
    // A private key, which is refused later, is not kept.
    let has_key = |migrate: &Migrate| migrate.identity.as_ref().is_some_and(|i| i.key.is_some());
    match request {
        Request::Migrate(migrate) if has_key(migrate) => {}
        request => assert_eq!(again.as_ref(), Some(request)),
    }
    if let Request::Migrate(migrate) = request
        && let Ok(address) = migrate.to.parse::<Address>()
    {
        let text = address.to_string();
        assert_eq!(text.parse::<Address>().ok(), Some(address), "{text}");
    }
}
