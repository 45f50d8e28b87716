//! A lease, with its row.

use dkv_base::id::{HolderId, LeaseId};
use dkv_wire::limits::USER_BYTES_MAX;
use dkv_wire::user::User;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::rows::MalformedRow;

const LEASE_BYTES: usize = 8 + 8 + 16 + 1 + USER_BYTES_MAX;

/// A lease, without its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    /// The time that each keep-alive gives it, in milliseconds.
    pub(super) ttl_ms: u64,
    /// A number of this grant, so that what was meant for an earlier lease under the same id does
    /// not end this one.
    pub(super) grant: u64,
    /// The holder to which it was granted.
    pub(super) holder: HolderId,
    /// The user to whom it was granted, if it was granted to one.
    pub(super) owner: Option<User>,
    /// Whether it has ended, and keys are left to be deleted.
    pub(super) ending: bool,
}

impl Lease {
    /// Encodes the value of a row of [`Table::Leases`](super::rows::Table::Leases).
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(LEASE_BYTES);
        encoded.extend_from_slice(&self.ttl_ms.to_le_bytes());
        encoded.extend_from_slice(&self.grant.to_le_bytes());
        encoded.extend_from_slice(self.holder.0.as_bytes());
        encoded.push(u8::from(self.ending));
        // No user has an empty name.
        encoded.extend_from_slice(self.owner.as_ref().map_or("", User::as_str).as_bytes());
        encoded
    }

    /// Decodes a row of [`Table::Leases`](super::rows::Table::Leases).
    pub(super) fn decode(key: &[u8], row: &[u8]) -> Result<(LeaseId, Self), MalformedRow> {
        let malformed = MalformedRow("a lease is malformed");
        let id = LeaseId(u64::from_be_bytes(key.try_into().map_err(|_| malformed)?));
        let (ttl_ms, rest) = row.split_first_chunk::<8>().ok_or(malformed)?;
        let (grant, rest) = rest.split_first_chunk::<8>().ok_or(malformed)?;
        let (holder, rest) = rest.split_first_chunk::<16>().ok_or(malformed)?;
        let (ending, owner) = match rest {
            [0, owner @ ..] => (false, owner),
            [1, owner @ ..] => (true, owner),
            _ => return Err(malformed),
        };
        let owner = match std::str::from_utf8(owner).map_err(|_| malformed)? {
            "" => None,
            name => Some(name.parse().map_err(|_| malformed)?),
        };
        if !id.is_valid() {
            return Err(malformed);
        }
        let holder = HolderId(Uuid::from_bytes(*holder));
        let (ttl_ms, grant) = (u64::from_le_bytes(*ttl_ms), u64::from_le_bytes(*grant));
        Ok((id, Self { ttl_ms, grant, holder, owner, ending }))
    }

    /// Returns the number that represents the lease in the digest.
    pub(super) fn number(&self) -> u64 {
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
            ending in any::<bool>(),
            owner in proptest::option::of("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"),
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            text in "[a-zA-Z0-9-]{0,40}",
        ) {
            let holder = HolderId(Uuid::from_u128(7));
            let owner = owner.map(|name| name.parse().unwrap());
            let lease = Lease { ttl_ms: numbers[0], grant: numbers[1], holder, owner, ending };
            let key = id.to_be_bytes();
            prop_assert_eq!(Lease::decode(&key, &lease.encode()), Ok((LeaseId(id), lease)));
            // Two rows never mean the same.
            let named = [&Lease { owner: None, ..lease }.encode()[..], text.as_bytes()].concat();
            for bytes in [&bytes, &named] {
                if let Ok((_, lease)) = Lease::decode(&key, bytes) {
                    prop_assert_eq!(lease.encode(), &bytes[..]);
                }
            }
            prop_assert!(Lease::decode(&[0; 8], &lease.encode()).is_err());
        }
    }
}
