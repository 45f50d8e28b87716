//! Which keys there are.
//!
//! The network reads keys that it is told and has no list of them, and `GET /fetch` is to answer
//! with all pairs. So there is a list: 256 values of the network, each with the keys of which a hash
//! ends in its number. A key is put into its list before it is written for the first time, and stays
//! there: nothing of `/set` is ever deleted. A list is changed under the condition that nobody else
//! has changed it, so any number of gateways keep one index together.
//!
//! Every new key writes its list anew: good for some hundred thousand keys, and for no more than a
//! list takes, which is a value of the network. An update costs nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dkv_api::{Condition, Error, ReadOptions};
use tokio::sync::Mutex;

use crate::limits::{INDEX_ATTEMPTS_MAX, INDEX_LISTS};
use crate::store::Store;

/// The index. Only one task of a gateway changes a list at a time.
#[derive(Clone)]
pub(crate) struct Index {
    lists: Arc<Vec<Mutex<()>>>,
}

impl Default for Index {
    fn default() -> Self {
        Self { lists: Arc::new((0..INDEX_LISTS).map(|_| Mutex::default()).collect()) }
    }
}

/// The list of a key: FNV-1a (RFC 9923), which has to stay as it is.
pub(super) fn list_of(key: &[u8]) -> usize {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash % INDEX_LISTS as u64) as usize
}

impl Index {
    /// Puts keys into the list that they belong to.
    ///
    /// # Errors
    /// Those of the store. Keys may be in the list then, which does no harm.
    pub(super) async fn add<S: Store>(
        &self,
        store: &S,
        list: usize,
        keys: &[Vec<u8>],
    ) -> Result<(), Error> {
        let _turn = match self.lists.get(list) {
            Some(turn) => turn.lock().await,
            None => return Err(Error::Invalid("there is no such list".into())),
        };
        let mut last = Error::Unavailable("the list of keys is changed too often".into());
        for _ in 0..INDEX_ATTEMPTS_MAX {
            let (mut content, condition) =
                match store.read(&name(list), ReadOptions::default()).await {
                    Ok(read) => (read.value.to_vec(), Condition::Revision(read.receipt.revision)),
                    Err(Error::NotFound { .. }) => (Vec::new(), Condition::Absent),
                    Err(error) => return Err(error),
                };
            let known: BTreeSet<&[u8]> = entries(&content).collect();
            let missing: BTreeSet<&[u8]> = keys.iter().map(Vec::as_slice).collect();
            let missing: Vec<&[u8]> = missing.difference(&known).copied().collect();
            if missing.is_empty() {
                return Ok(());
            }
            let mut added = Vec::new();
            for key in missing {
                let length = u16::try_from(key.len()).map_err(|_| too_long(key.len()))?;
                added.extend_from_slice(&length.to_le_bytes());
                added.extend_from_slice(key);
            }
            content.extend_from_slice(&added);
            match store.write(&name(list), content.into(), condition.into()).await {
                Ok(_) => return Ok(()),
                // Another gateway was faster, or this one was and does not know it.
                Err(error @ (Error::Conflict { .. } | Error::Unknown(_))) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The keys of a list.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn keys<S: Store>(store: &S, list: usize) -> Result<Vec<Bytes>, Error> {
        match store.read(&name(list), ReadOptions::default()).await {
            Ok(read) => Ok(entries(&read.value).map(|key| read.value.slice_ref(key)).collect()),
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

/// What a list is called in the network.
fn name(list: usize) -> Vec<u8> {
    format!("pairs-index/{list:02x}").into_bytes()
}

fn too_long(bytes: usize) -> Error {
    Error::TooLarge { what: "key".into(), bytes: bytes as u64, limit: u64::from(u16::MAX) }
}

/// The keys in a list, each after its length (u16, little endian), up to what is not one.
fn entries(mut content: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = content.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        content = rest;
        Some(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[tokio::test]
    async fn two_gateways_keep_one_index() {
        let store = Memory::default();
        let (one, other) = (Index::default(), Index::default());
        let key = |number: u32| number.to_le_bytes().to_vec();
        for number in 0..100 {
            let (a, b) = ([key(number), key(number)], [key(number / 2), key(number + 1)]);
            let (a, b) = tokio::join!(one.add(&store, 7, &a), other.add(&store, 7, &b));
            assert_eq!((a, b), (Ok(()), Ok(())));
        }
        let mut keys = Index::keys(&store, 7).await.unwrap();
        assert_eq!(keys.len(), 101);
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), 101);
        assert_eq!(Index::keys(&store, 8).await, Ok(Vec::new()));
        assert_eq!(entries(&[1]).count() + entries(&[5, 0, 1]).count(), 0);
        assert_eq!(list_of(b"sfoobar"), list_of(b"sfoobar"));
    }
}
