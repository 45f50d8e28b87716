//! Seals: marks by which a node knows its own word again.
//!
//! What a node has promised, others tell it later, and what they tell may cost it its place. So it
//! seals its word with a secret that never leaves its data directory, and believes of what it is
//! told about itself only what carries its seal. A seal is HMAC-SHA256 (RFC 2104), cut to 16 bytes.

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};

/// Bytes of a seal.
const BYTES: usize = 16;

/// The mark of one [`Sealer`] on one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(pub [u8; BYTES]);

/// Makes seals and knows them again.
#[derive(Clone)]
pub struct Sealer {
    key: hmac::Key,
}

impl Sealer {
    /// One whose seals follow from `secret`. Seals for different purposes never agree.
    pub fn new(secret: &[u8], purpose: &str) -> Self {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let key = hmac::sign(&secret, purpose.as_bytes());
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) }
    }

    /// The seal on a word.
    pub fn seal(&self, word: &[u8]) -> Seal {
        let tag = hmac::sign(&self.key, word);
        Seal(tag.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Whether that is the seal on the word. Takes the same time whatever the answer is.
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
    fn a_seal_is_known_by_its_maker_on_its_word_for_its_purpose() {
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
