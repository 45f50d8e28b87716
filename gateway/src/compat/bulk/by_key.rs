//! What asks for the keys that it names.

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
use crate::app::Gateway;
use crate::body::Pieces;
use crate::limits::{PAIRS_ANSWER_BYTES_MAX, PAIRS_AT_ONCE};
use crate::store::Store;

type Answered = Result<Response<Body>, Response<Body>>;

/// What keys begin with in the network.
pub(super) const PREFIX: &[u8] = b"pairs/";

/// The key in the network.
fn stored_key(key: &[u8]) -> Vec<u8> {
    [PREFIX, key].concat()
}

/// What became of pairs that were to be stored.
#[derive(Serialize)]
struct Stored {
    keys_added: usize,
    keys_failed: Vec<Item>,
}

/// Stores pairs. Of pairs with the same key the last one counts.
pub(super) async fn set<S: Store>(gateway: &Gateway<S>, pairs: Vec<Pair>) -> Answered {
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
    let whole = failed.is_empty();
    let text = serde_json::to_vec(&[Stored { keys_added: added, keys_failed: failed }])
        .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
    Ok(answer(status(whole), Body::from(text)))
}

/// Stores pairs, and tells which keys failed.
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
    let failed = stream::iter(writes).buffer_unordered(PAIRS_AT_ONCE);
    failed.filter_map(future::ready).collect().await
}

/// What came of one key.
enum Found {
    Value(Item),
    Missing,
    /// It is no key.
    Invalid,
    Unread(String),
}

/// What is told of a key, with the members in the order of the document.
#[derive(Serialize)]
struct Told<T> {
    key: Item,
    /// `null` if there is none, or nobody knows.
    value: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<T> Told<T> {
    fn of(key: Item, value: Option<T>) -> Self {
        Self { key, value, error: None }
    }

    fn unread(key: Item, why: String) -> Self {
        Self { key, value: None, error: Some(why) }
    }
}

/// Reads keys: the value of each, or `null`.
pub(super) async fn fetch<S: Store>(gateway: &Gateway<S>, keys: Vec<Item>) -> Answered {
    let told = |key: Item, found: Found| match found {
        Found::Value(value) => (true, Told::of(key, Some(value))),
        Found::Missing | Found::Invalid => (false, Told::of(key, None)),
        Found::Unread(why) => (false, Told::unread(key, why)),
    };
    look_up(gateway, keys, told).await
}

/// Tells of each key whether it is there.
pub(super) async fn query<S: Store>(gateway: &Gateway<S>, keys: Vec<Item>) -> Answered {
    let told = |key: Item, found: Found| match found {
        Found::Value(_) => (true, Told::of(key, Some(true))),
        Found::Missing => (true, Told::of(key, Some(false))),
        Found::Invalid => (false, Told::of(key, Some(false))),
        Found::Unread(why) => (false, Told::unread(key, why)),
    };
    look_up(gateway, keys, told).await
}

async fn look_up<S: Store, T: Serialize>(
    gateway: &Gateway<S>,
    keys: Vec<Item>,
    told: impl Fn(Item, Found) -> (bool, Told<T>),
) -> Answered {
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
    let mut reads = stream::iter(reads).buffered(PAIRS_AT_ONCE);
    let (mut elements, mut count, mut whole) = (Pieces::default(), 0, true);
    let (mut unread, mut why_unread) = (0, String::new());
    elements.push("[");
    while let Some((key, found)) = reads.next().await {
        if let Found::Unread(why) = &found {
            unread += 1;
            why_unread.clone_from(why);
        }
        let (good, told) = told(key, found);
        let mut text = if count > 0 { vec![b','] } else { Vec::new() };
        serde_json::to_writer(&mut text, &told)
            .map_err(|error| refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()))?;
        let text = Bytes::from(text);
        if elements.len() + text.len() > PAIRS_ANSWER_BYTES_MAX {
            let why = "the answer would be too long: ask for fewer keys";
            return Err(refuse(StatusCode::PAYLOAD_TOO_LARGE, why));
        }
        let room = gateway.budget.take(text.len());
        let room = room.map_err(|error| refuse(error.status(), &error.to_string()))?;
        elements.push_held(text, room);
        (count, whole) = (count + 1, whole & good);
    }
    if unread > 0 && unread == count {
        return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, &why_unread));
    }
    elements.push("]");
    Ok(answer(status(whole), elements.into_body()))
}

async fn find<S: Store>(store: &S, key: &Item) -> Found {
    let Some(stored) = key.stored() else { return Found::Invalid };
    match store.read(&stored_key(&stored), ReadOptions::default()).await {
        Ok(read) => match Item::from_stored(&read.value) {
            Some(item) => Found::Value(item),
            None => Found::Unread("the value was not stored by /set".into()),
        },
        Err(Error::NotFound { .. }) => Found::Missing,
        // Such a key was never stored.
        Err(Error::TooLarge { .. }) => Found::Missing,
        Err(error) => Found::Unread(error.to_string()),
    }
}
