//! What a key is attached to, with its row.

use dkv_base::id::LeaseId;
use xxhash_rust::xxh3::xxh3_64;

use super::MalformedRow;

const LEASE: u8 = 1;
const EXPIRY: u8 = 2;
/// Most bytes of the value of a row of [`Table::Attachments`](super::Table::Attachments).
pub(crate) const ATTACHMENT_BYTES_MAX: usize = 1 + 8 + 8;

/// What a key is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attachment {
    /// A lease.
    Lease(LeaseId),
    /// A deadline by the log's clock, and the time to live that led to it, in milliseconds.
    Expiry { deadline_ms: u64, ttl_ms: u64 },
}

impl Attachment {
    /// Encodes the value of a row of [`Table::Attachments`](super::Table::Attachments).
    pub(crate) fn encode(self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(ATTACHMENT_BYTES_MAX);
        match self {
            Self::Lease(lease) => {
                encoded.push(LEASE);
                encoded.extend_from_slice(&lease.0.to_le_bytes());
            }
            Self::Expiry { deadline_ms, ttl_ms } => {
                encoded.push(EXPIRY);
                encoded.extend_from_slice(&deadline_ms.to_le_bytes());
                encoded.extend_from_slice(&ttl_ms.to_le_bytes());
            }
        }
        encoded
    }

    /// Decodes the value of a row of [`Table::Attachments`](super::Table::Attachments).
    pub(crate) fn decode(row: &[u8]) -> Result<Self, MalformedRow> {
        let malformed = MalformedRow("an attachment is malformed");
        let (kind, rest) = row.split_first().ok_or(malformed)?;
        let (first, rest) = rest.split_first_chunk::<8>().ok_or(malformed)?;
        let first = u64::from_le_bytes(*first);
        match (*kind, <[u8; 8]>::try_from(rest)) {
            (LEASE, Err(_)) if rest.is_empty() && LeaseId(first).is_valid() => {
                Ok(Self::Lease(LeaseId(first)))
            }
            (EXPIRY, Ok(ttl)) => {
                Ok(Self::Expiry { deadline_ms: first, ttl_ms: u64::from_le_bytes(ttl) })
            }
            _ => Err(malformed),
        }
    }

    /// Returns the number that represents the attachment in the digest.
    pub(crate) fn number(self) -> u64 {
        xxh3_64(&self.encode())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back_and_nothing_else_is_one(
            numbers in any::<[u64; 2]>(),
            id in 1..=LeaseId::LAST.0,
            bytes in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let expiry = Attachment::Expiry { deadline_ms: numbers[0], ttl_ms: numbers[1] };
            for attachment in [Attachment::Lease(LeaseId(id)), expiry] {
                prop_assert_eq!(Attachment::decode(&attachment.encode()), Ok(attachment));
            }
            // Two rows never mean the same.
            if let Ok(attachment) = Attachment::decode(&bytes) {
                prop_assert_eq!(attachment.encode(), &bytes[..]);
            }
        }
    }
}
