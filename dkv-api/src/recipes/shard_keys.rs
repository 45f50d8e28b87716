//! Keys that are in the shard of another key, and the lists of them.

use bytes::Bytes;
use dkv_base::id::{GroupId, Revision};
use dkv_wire::limits::{SCAN_BYTES_MAX, SCAN_KEYS_MAX};
use dkv_wire::message::{Answer, Level, Pair, ReadBounds, Span};
use dkv_wire::network::NetworkView;

use crate::client::{Client, checked_key, wrong_answer};
use crate::error::Error;
use crate::router::RequestKind;

/// Endings that are tried for each shard of the network. The chance that none of them is right is
/// e to the power of minus this.
const TRIES_PER_SHARD: usize = 100;

/// Returns the shard of a name, and a key that begins with `stem` in the same shard.
///
/// # Errors
/// [`Error::TooLarge`] if the key is too long; [`Error::Unavailable`] if the network has no shards
/// yet.
pub(super) fn key_beside(
    client: &Client,
    view: &NetworkView,
    name: &[u8],
    stem: &[u8],
) -> Result<(GroupId, Bytes), Error> {
    let shards = client.shards(view)?.len();
    let shard_of = |key: &[u8]| client.shard_of(view, key).map(|shard| shard.group).ok();
    let shard = client.shard_of(view, name)?.group;
    Ok((shard, checked_key(&ending_in(shard, shards, shard_of, stem)?)?))
}

/// Returns a key that begins with `stem` in one of so many shards.
fn ending_in(
    shard: GroupId,
    shards: usize,
    shard_of: impl Fn(&[u8]) -> Option<GroupId>,
    stem: &[u8],
) -> Result<Vec<u8>, Error> {
    for ending in 0..shards.saturating_mul(TRIES_PER_SHARD) {
        let key = [stem, b".", ending.to_string().as_bytes()].concat();
        if shard_of(&key) == Some(shard) {
            return Ok(key);
        }
    }
    Err(Error::Unavailable("no key was found in the shard of the name; choose another name".into()))
}

/// Keys of a shard that begin with a prefix; of other recipes with a longer name, none.
#[derive(Debug)]
pub(super) struct Listed {
    /// The keys, in the order of their bytes.
    pub(super) pairs: Vec<Pair>,
    /// A revision of the shard; the list shows at least what was written before.
    pub(super) revision: Revision,
}

/// Lists keys of a shard after `after` with their values, strongly, until there are `limit` or no
/// more.
///
/// # Errors
/// [`Error::Unavailable`].
pub(super) async fn list(
    client: &Client,
    shard: GroupId,
    prefix: &Bytes,
    after: Bytes,
    limit: usize,
) -> Result<Listed, Error> {
    let mut listed = Listed { pairs: Vec::new(), revision: Revision(0) };
    let mut after = after;
    loop {
        let span = Span {
            prefix: prefix.clone(),
            after: after.clone(),
            keys_max: SCAN_KEYS_MAX as u32,
            bytes_max: SCAN_BYTES_MAX as u32,
            values: true,
        };
        let (level, bounds) = (Level::Strong, ReadBounds::default());
        let kind = RequestKind::Scan { shard, span, level, bounds };
        let Answer::Page(receipt, page) = client.request(kind, None).await? else {
            return Err(wrong_answer());
        };
        if listed.revision == Revision(0) {
            listed.revision = receipt.revision;
        }
        let last = page.pairs.last().map(|pair| pair.key.clone());
        let own = |pair: &Pair| pair.revision != Revision(0) && is_own(prefix, &pair.key);
        listed.pairs.extend(page.pairs.into_iter().filter(own));
        match last {
            Some(last) if page.more && listed.pairs.len() < limit && last > after => after = last,
            _ => return Ok(listed),
        }
    }
}

/// Returns whether a key is of the recipe with this prefix, and not of one whose name begins with
/// it.
fn is_own(prefix: &[u8], key: &[u8]) -> bool {
    key.strip_prefix(prefix).is_some_and(|rest| !rest.contains(&b'/'))
}

#[cfg(test)]
mod tests {
    use dkv_wire::network::{key_hash, shard_starts};

    use super::*;

    #[test]
    fn a_key_is_found_beside_any_name() {
        for shards in [1, 2, 3, 64, 1000] {
            let starts: Vec<u64> = shard_starts(shards).collect();
            let shard_of = |key: &[u8]| {
                let hash = key_hash(key);
                let after = starts.partition_point(|first_hash| *first_hash <= hash);
                u32::try_from(after).ok().map(GroupId)
            };
            for number in 0..20 {
                let name = format!("lock/{number}");
                let stem = format!("{name}/0123456789abcdef");
                let shard = shard_of(name.as_bytes()).unwrap();
                let key = ending_in(shard, starts.len(), shard_of, stem.as_bytes()).unwrap();
                assert_eq!(shard_of(&key), Some(shard));
                assert!(is_own(format!("{name}/").as_bytes(), &key));
            }
        }
        assert!(!is_own(b"lock/", b"lock/1/0123456789abcdef.0"));
    }
}
