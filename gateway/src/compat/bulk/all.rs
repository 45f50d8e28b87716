//! `GET /fetch`: streams all pairs.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use dkv_api::{Error, Pair as Listed, ScanOptions};
use futures::future;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::by_key::PREFIX;
use super::format::{Item, Pair};
use super::{answer, refuse};
use crate::limits::FETCH_ALL_BYTES;
use crate::state::Gateway;
use crate::store::Store;

/// Streams all pairs from a scan, which is not a snapshot. If the network fails midway, the
/// connection breaks off, so that no client mistakes a part for the whole.
pub(super) async fn fetch<S: Store>(
    gateway: &Gateway<S>,
) -> Result<Response<Body>, Response<Body>> {
    let unavailable = |why: &str| refuse(StatusCode::SERVICE_UNAVAILABLE, why);
    let reservation = gateway.budget.reserve(FETCH_ALL_BYTES);
    let reservation = reservation.map_err(|error| unavailable(&error.to_string()))?;
    let mut scan = Box::pin(gateway.store.scan(ScanOptions::prefix(PREFIX)));
    // An immediate failure still gets a status of its own.
    let first = scan.try_next().await.map_err(|error| unavailable(&error.to_string()))?;
    let mut begun = false;
    let pairs = stream::iter(first.map(Ok))
        .chain(scan)
        .try_filter_map(|listed| future::ready(Ok(pair(&listed))))
        .and_then(|pair| {
            let text = serde_json::to_string(&pair);
            future::ready(text.map_err(|error| Error::Invalid(error.to_string())))
        })
        .map_ok(move |text| {
            // The stream keeps the reservation.
            let _ = &reservation;
            let comma = if begun { ",\n" } else { "" };
            begun = true;
            Bytes::from(format!("{comma}{text}"))
        });
    let ends =
        |text: &'static str| stream::once(async move { Ok(Bytes::from_static(text.as_bytes())) });
    let body = ends("[").chain(pairs).chain(ends("]"));
    Ok(answer(StatusCode::OK, Body::from_stream(body)))
}

/// Converts a listed pair; `None` if it was not stored by `/set`.
fn pair(listed: &Listed) -> Option<Pair> {
    let key = Item::from_stored(listed.key.strip_prefix(PREFIX)?)?;
    Some(Pair { key, value: Item::from_stored(listed.value.as_ref()?)? })
}
