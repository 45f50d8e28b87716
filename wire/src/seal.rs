//! Seals: message authentication codes by which a node recognises its own statements.
//!
//! Other nodes repeat to a node what it has promised them, and a broken promise makes the node
//! stop. So the node seals its promises with a secret that never leaves its data directory, and
//! accepts a statement about itself only with its own seal. A seal is HMAC-SHA256 (RFC 2104),
//! truncated to 16 bytes.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// Length of a seal, in bytes.
const BYTES: usize = 16;

/// The authentication code of a [`Sealer`] for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(pub [u8; BYTES]);

/// Makes and verifies seals.
#[derive(Clone)]
pub struct Sealer {
    key: hmac::Key,
}

impl Sealer {
    /// A sealer with a key derived from `secret` and `purpose`. Seals for different purposes never
    /// match.
    pub fn new(secret: &[u8], purpose: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&secret, purpose.as_bytes());
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// The seal of a message.
    pub fn seal(&self, word: &[u8]) -> Seal {
        let tag = hmac::sign(&self.key, word);
        Seal(tag.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Whether `seal` is the seal of the message, in constant time.
    pub fn knows(&self, word: &[u8], seal: Seal) -> bool {
        let own = self.seal(word);
        aws_lc_rs::constant_time::verify_slices_are_equal(&own.0, &seal.0).is_ok()
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_fits_its_maker_its_message_and_its_purpose_only() {
        let sealer = Sealer::new(b"secret", "promises");
        let seal = sealer.seal(b"entry 7");
        assert!(sealer.knows(b"entry 7", seal));
        assert!(Sealer::new(b"secret", "promises").knows(b"entry 7", seal), "after a restart");
        assert!(!sealer.knows(b"entry 8", seal));
        assert!(!sealer.knows(b"entry 7", Seal([0; BYTES])));
        assert!(!Sealer::new(b"another", "promises").knows(b"entry 7", seal));
        assert!(!Sealer::new(b"secret", "names").knows(b"entry 7", seal));
        assert_eq!(format!("{sealer:?}"), "Sealer", "the key is not shown");
    }
}
