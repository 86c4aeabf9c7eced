//! Public keys as text: `ed25519:` and 43 letters.

use super::Error;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fmt, str::FromStr};

const PREFIX: &str = "ed25519:";
/// The prefix of a `SubjectPublicKeyInfo` of Ed25519 (RFC 8410) before the key, without the
/// outermost tag and length.
pub(super) const SPKI: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A host's public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey(pub [u8; 32]);

impl FromStr for PublicKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Key(text.chars().take(100).collect());
        let letters = text.strip_prefix(PREFIX).filter(|l| l.len() == 43).ok_or_else(wrong)?;
        let mut key = [0; 32];
        match URL_SAFE_NO_PAD.decode_slice(letters, &mut key) {
            Ok(32) => Ok(Self(key)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PublicKey {
    /// The content of its `SubjectPublicKeyInfo`.
    pub(super) fn spki(&self) -> Vec<u8> {
        [&SPKI[..], &self.0].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_printing_and_parsing() {
        for key in [[0; 32], [0xff; 32], std::array::from_fn(|n| n as u8)] {
            let text = PublicKey(key).to_string();
            assert_eq!(text.len(), 51);
            assert_eq!(text.parse::<PublicKey>().unwrap(), PublicKey(key));
        }
    }

    #[test]
    fn invalid_keys_are_refused() {
        let key = PublicKey([7; 32]).to_string();
        for wrong in [
            "",
            "ed25519:",
            &key[1..],
            &key[..50],
            &format!("{key}A"),
            &key.replace("ed25519", "rsa"),
            &format!("{}=", &key[..50]),
        ] {
            let said = wrong.parse::<PublicKey>().unwrap_err().to_string();
            assert!(said.contains("identity show"), "{said}");
        }
        // Bits behind the last byte must be zero: a key has one spelling.
        assert!(format!("{}d", &key[..50]).parse::<PublicKey>().is_err());
    }
}
