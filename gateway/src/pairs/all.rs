//! All pairs, as they come.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use dkv_api::{Error, ReadOptions};
use futures::future;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::format::{Item, Pair};
use super::index::Index;
use super::some::stored_key;
use super::{answer, refuse};
use crate::app::Gateway;
use crate::limits::{FETCH_ALL_AT_ONCE, FETCH_ALL_BYTES, INDEX_LISTS};
use crate::store::Store;

/// Streams all pairs that there are. Each is as a strong read has it when its turn comes; together
/// they are of no one moment. If the network fails in the middle, the connection is broken off, so
/// that nobody takes a part for the whole.
pub(super) async fn fetch<S: Store>(
    gateway: &Gateway<S>,
) -> Result<Response<Body>, Response<Body>> {
    let unavailable = |why: &str| refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    let held = gateway.budget.take(FETCH_ALL_BYTES);
    let held = held.map_err(|error| unavailable(&error.to_string()))?;
    let first = Index::keys(&gateway.store, 0).await;
    first.map_err(|error| unavailable(&error.to_string()))?;

    let (store, lists) = (gateway.store.clone(), gateway.store.clone());
    let mut begun = false;
    let pairs = stream::iter(0..INDEX_LISTS)
        .then(move |list| {
            let store = lists.clone();
            async move { Index::keys(&store, list).await }
        })
        .map_ok(move |keys| {
            let store = store.clone();
            stream::iter(keys)
                .map(move |key| {
                    let store = store.clone();
                    async move { read(&store, &key).await }
                })
                .buffered(FETCH_ALL_AT_ONCE)
        })
        .try_flatten()
        .try_filter_map(|pair| future::ready(Ok(pair)))
        .and_then(|pair| {
            let text = serde_json::to_string(&pair);
            future::ready(text.map_err(|error| Error::Invalid(error.to_string())))
        })
        .map_ok(move |text| {
            let _ = &held;
            let comma = if begun { ",\n" } else { "" };
            begun = true;
            Bytes::from(format!("{comma}{text}"))
        });
    let ends =
        |text: &'static str| stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) });
    let body = ends("[").chain(pairs).chain(ends("]"));
    Ok(answer(StatusCode::OK, Body::from_stream(body)))
}

/// A pair of the index; none if it was not stored after all.
async fn read<S: Store>(store: &S, key: &[u8]) -> Result<Option<Pair>, Error> {
    match store.read(&stored_key(key), ReadOptions::default()).await {
        Ok(read) => {
            let pair = Item::from_stored(key).zip(Item::from_stored(&read.value));
            Ok(pair.map(|(key, value)| Pair { key, value }))
        }
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
