//! `/v1/kv`: lists keys in order, a page at a time.

use axum::body::Body;
use axum::http::{Method, Response, Uri};
use bytes::Bytes;
use dkv_api::{Level, Pair, Revision, ScanOptions};
use futures::stream::TryStreamExt;
use serde_json::{Map, Value, json};
use tokio::sync::SemaphorePermit;

use super::keyspaces::{self, Keyspaced};
use crate::body::ResponseParts;
use crate::bytes_json::{self, Encoding};
use crate::limits::{LIST_TURN_TIMEOUT, PAGE_BYTES};
use crate::percent;
use crate::problem::Problem;
use crate::query::ListQuery;
use crate::response::{is_get, page_document};
use crate::state::Gateway;
use crate::store::Store;

/// Answers a request for a page.
pub(super) async fn serve<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    method: Method,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD"));
    }
    page(&gateway, &ListQuery::parse(uri.query())?).await
}

async fn page<S: Store>(
    gateway: &Gateway<S>,
    query: &ListQuery,
) -> Result<Response<Body>, Problem> {
    // A scan holds a page of each shard, and nothing tells its size in advance.
    let _turn = turn(gateway).await?;
    let mut options = ScanOptions::prefix(query.prefix.clone())
        .after(query.after.clone())
        // One more key shows whether the list goes on.
        .limit(query.limit as u64 + 1)
        .values(query.values)
        .level(query.level);
    options.at = query.revision;
    let mut pairs = std::pin::pin!(gateway.store.scan(options));
    let (mut count, mut bytes, mut last) = (0, 0, None);
    let mut page = ResponseParts::default();
    page.push("{\"pairs\":[");
    while let Some(pair) =
        pairs.try_next().await.map_err(|error| Problem::from_error(error, false))?
    {
        if count == query.limit || bytes >= PAGE_BYTES {
            let next = next(query, last.as_deref().unwrap_or_default());
            let next = next + &keyspaces::parameter(gateway);
            return Ok(answer(page, Some(next)));
        }
        bytes += pair.key.len() + pair.value.as_ref().map_or(0, Bytes::len);
        let comma = if count > 0 { "," } else { "" };
        let text = Bytes::from(format!("{comma}{}", element(&pair, query)));
        let room = gateway.budget.reserve(text.len());
        page.push_reserved(text, room.map_err(|error| Problem::unavailable(error.to_string()))?);
        (count, last) = (count + 1, Some(pair.key));
    }
    Ok(answer(page, None))
}

/// Waits until another page may be gathered.
pub(super) async fn turn<S>(gateway: &Gateway<S>) -> Result<SemaphorePermit<'_>, Problem> {
    match tokio::time::timeout(LIST_TURN_TIMEOUT, gateway.lists.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        _ => Err(Problem::unavailable("too many lists are in progress")),
    }
}

fn element(pair: &Pair, query: &ListQuery) -> Value {
    let mut element = Map::new();
    bytes_json::put(&mut element, "key", &pair.key, query.encoding);
    if let Some(value) = &pair.value {
        bytes_json::put(&mut element, "value", value, query.encoding);
    }
    match pair.revision {
        Revision(0) => element.insert("pending".into(), true.into()),
        revision => element.insert("revision".into(), revision.0.into()),
    };
    Value::Object(element)
}

/// Returns the target of the next page.
fn next(query: &ListQuery, after: &[u8]) -> String {
    let mut next = format!("/v1/kv?after={}&limit={}", percent::encode(after), query.limit);
    if !query.prefix.is_empty() {
        next.push_str("&prefix=");
        next.push_str(&percent::encode(&query.prefix));
    }
    if query.level == Level::Eventual {
        next.push_str("&consistency=eventual");
    }
    if let Some(revision) = query.revision {
        next.push_str(&format!("&revision={revision}"));
    }
    if !query.values {
        next.push_str("&values=false");
    }
    if query.encoding == Encoding::Base64 {
        next.push_str("&encoding=base64");
    }
    next
}

fn answer(mut page: ResponseParts, next: Option<String>) -> Response<Body> {
    page.push(format!("],\"next\":{}}}", json!(next)));
    page_document(page, next)
}
