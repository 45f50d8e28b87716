//! `PUT /set`, `POST /fetch` and `POST /query`: requests that name their keys.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use dkv_api::{Condition, Error, ReadOptions};
use futures::future;
use futures::stream::{self, StreamExt};
use serde::Serialize;

use super::format::{Item, Pair};
use super::{answer, refuse, status};
use crate::body::ResponseParts;
use crate::limits::{BULK_ANSWER_BYTES_MAX, BULK_AT_ONCE};
use crate::state::Gateway;
use crate::store::Store;

type Answer = Result<Response<Body>, Response<Body>>;

/// The prefix of keys in the network.
pub(super) const PREFIX: &[u8] = b"pairs/";

/// Returns the key in the network.
fn stored_key(key: &[u8]) -> Vec<u8> {
    [PREFIX, key].concat()
}

/// The answer to `/set`.
#[derive(Serialize)]
struct SetResult {
    keys_added: usize,
    keys_failed: Vec<Item>,
}

/// Stores pairs. If several have the same key, the last one wins.
pub(super) async fn set<S: Store>(gateway: &Gateway<S>, pairs: Vec<Pair>) -> Answer {
    let count = pairs.len();
    let mut wanted: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    let mut keys = Vec::with_capacity(count);
    for pair in pairs {
        let stored = pair.key.stored().zip(pair.value.stored());
        keys.push((pair.key, stored.as_ref().map(|(key, _)| key.clone())));
        wanted.extend(stored);
    }
    let failed = store_all(gateway, wanted).await;
    let failed: Vec<Item> = keys
        .into_iter()
        .filter(|(_, stored)| stored.as_ref().is_none_or(|stored| failed.contains(stored)))
        .map(|(key, _)| key)
        .collect();
    let added = count - failed.len();
    let is_complete = failed.is_empty();
    let text = serde_json::to_vec(&[SetResult { keys_added: added, keys_failed: failed }])
        .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
    Ok(answer(status(is_complete), Body::from(text)))
}

/// Stores pairs, and returns the keys that failed.
async fn store_all<S: Store>(
    gateway: &Gateway<S>,
    wanted: BTreeMap<Vec<u8>, Vec<u8>>,
) -> BTreeSet<Vec<u8>> {
    let writes: Vec<_> = wanted
        .into_iter()
        .map(|(key, value)| {
            let store = gateway.store.clone();
            async move {
                let name = stored_key(&key);
                let written = store.write(&name, value.into(), Condition::Always.into()).await;
                written.is_err().then_some(key)
            }
        })
        .collect();
    let failed = stream::iter(writes).buffer_unordered(BULK_AT_ONCE);
    failed.filter_map(future::ready).collect().await
}

/// The outcome of reading one key.
enum Outcome {
    Value(Item),
    Missing,
    /// The item is not a valid key.
    Invalid,
    /// The key could not be read; says why.
    Failed(String),
}

/// The answer for one key, with the members in the order of the specification.
#[derive(Serialize)]
struct KeyResult<T> {
    key: Item,
    /// `null` if the key does not exist or could not be read.
    value: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<T> KeyResult<T> {
    fn of(key: Item, value: Option<T>) -> Self {
        Self { key, value, error: None }
    }

    fn failed(key: Item, why: String) -> Self {
        Self { key, value: None, error: Some(why) }
    }
}

/// Returns the value of each key, or `null`.
pub(super) async fn fetch<S: Store>(gateway: &Gateway<S>, keys: Vec<Item>) -> Answer {
    let result_of = |key: Item, found: Outcome| match found {
        Outcome::Value(value) => (true, KeyResult::of(key, Some(value))),
        Outcome::Missing | Outcome::Invalid => (false, KeyResult::of(key, None)),
        Outcome::Failed(why) => (false, KeyResult::failed(key, why)),
    };
    look_up(gateway, keys, result_of).await
}

/// Returns for each key whether it exists.
pub(super) async fn query<S: Store>(gateway: &Gateway<S>, keys: Vec<Item>) -> Answer {
    let result_of = |key: Item, found: Outcome| match found {
        Outcome::Value(_) => (true, KeyResult::of(key, Some(true))),
        Outcome::Missing => (true, KeyResult::of(key, Some(false))),
        Outcome::Invalid => (false, KeyResult::of(key, Some(false))),
        Outcome::Failed(why) => (false, KeyResult::failed(key, why)),
    };
    look_up(gateway, keys, result_of).await
}

async fn look_up<S: Store, T: Serialize>(
    gateway: &Gateway<S>,
    keys: Vec<Item>,
    result_of: impl Fn(Item, Outcome) -> (bool, KeyResult<T>),
) -> Answer {
    let reads: Vec<_> = keys
        .into_iter()
        .map(|key| {
            let store = gateway.store.clone();
            async move {
                let found = find(&store, &key).await;
                (key, found)
            }
        })
        .collect();
    let mut reads = stream::iter(reads).buffered(BULK_AT_ONCE);
    let (mut elements, mut count, mut is_complete) = (ResponseParts::default(), 0, true);
    let (mut failures, mut last_error) = (0, String::new());
    elements.push("[");
    while let Some((key, found)) = reads.next().await {
        if let Outcome::Failed(why) = &found {
            failures += 1;
            last_error.clone_from(why);
        }
        let (is_good, result) = result_of(key, found);
        let mut text = if count > 0 { vec![b','] } else { Vec::new() };
        serde_json::to_writer(&mut text, &result)
            .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
        let text = Bytes::from(text);
        if elements.len() + text.len() > BULK_ANSWER_BYTES_MAX {
            let why = "the answer would be too long; ask for fewer keys";
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        let room = gateway.budget.reserve(text.len());
        let room = room.map_err(|error| refuse(error.status(), &error.to_string()))?;
        elements.push_reserved(text, room);
        (count, is_complete) = (count + 1, is_complete & is_good);
    }
    if failures > 0 && failures == count {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, &last_error));
    }
    elements.push("]");
    Ok(answer(status(is_complete), elements.into_body()))
}

async fn find<S: Store>(store: &S, key: &Item) -> Outcome {
    let Some(stored) = key.stored() else { return Outcome::Invalid };
    match store.read(&stored_key(&stored), ReadOptions::default()).await {
        Ok(read) => match Item::from_stored(&read.value) {
            Some(item) => Outcome::Value(item),
            None => Outcome::Failed("the value was not stored by /set".into()),
        },
        Err(Error::NotFound { .. }) => Outcome::Missing,
        // No such key can have been stored.
        Err(Error::TooLarge { .. }) => Outcome::Missing,
        Err(error) => Outcome::Failed(error.to_string()),
    }
}
