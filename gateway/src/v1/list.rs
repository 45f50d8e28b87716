//! `/v1/kv`: keys in order, a page at a time.

use axum::body::Body;
use axum::extract::State;
use axum::http::header::LINK;
use axum::http::{HeaderValue, Method, Request, Response};
use axum::response::IntoResponse;
use bytes::Bytes;
use dkv_api::{Level, Pair, Revision, ScanOptions};
use futures::stream::TryStreamExt;
use serde_json::{Map, Value, json};

use super::document;
use crate::app::Gateway;
use crate::body::Pieces;
use crate::bytes_json;
use crate::limits::{LIST_TURN_TIMEOUT, PAGE_BYTES};
use crate::percent;
use crate::problem::Problem;
use crate::query::ListQuery;
use crate::store::Store;

/// Answers with a page.
pub(super) async fn serve<S: Store>(
    State(gateway): State<Gateway<S>>,
    request: Request<Body>,
) -> Response<Body> {
    let (request, _) = request.into_parts();
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Problem::method("GET, HEAD").into_response();
    }
    let answered = match ListQuery::parse(request.uri.query()) {
        Ok(query) => page(&gateway, &query).await,
        Err(why) => Err(Problem::invalid(why)),
    };
    answered.unwrap_or_else(Problem::into_response)
}

async fn page<S: Store>(
    gateway: &Gateway<S>,
    query: &ListQuery,
) -> Result<Response<Body>, Problem> {
    // A scan holds a page of each shard, of which no more is known before it has come.
    let turn = tokio::time::timeout(LIST_TURN_TIMEOUT, gateway.lists.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(Problem::unavailable("too many pages are asked for"));
    };
    let options = ScanOptions::prefix(query.prefix.clone())
        .after(query.after.clone())
        // One more tells whether there are more.
        .limit(query.limit as u64 + 1)
        .values(query.values)
        .level(query.level);
    let mut pairs = std::pin::pin!(gateway.store.scan(options));
    let (mut count, mut bytes, mut last) = (0, 0, None);
    let mut page = Pieces::default();
    page.push("{\"pairs\":[");
    while let Some(pair) =
        pairs.try_next().await.map_err(|error| Problem::from_error(error, false))?
    {
        if count == query.limit || bytes >= PAGE_BYTES {
            let next = next(query, last.as_deref().unwrap_or_default());
            return Ok(answer(page, Some(next)));
        }
        bytes += pair.key.len() + pair.value.as_ref().map_or(0, Bytes::len);
        let comma = if count > 0 { "," } else { "" };
        let text = Bytes::from(format!("{comma}{}", element(&pair, query)));
        let room = gateway.budget.take(text.len());
        page.push_held(text, room.map_err(|error| Problem::unavailable(error.to_string()))?);
        (count, last) = (count + 1, Some(pair.key));
    }
    Ok(answer(page, None))
}

fn element(pair: &Pair, query: &ListQuery) -> Value {
    let mut element = Map::new();
    bytes_json::put(&mut element, "key", &pair.key, query.shown);
    if let Some(value) = &pair.value {
        bytes_json::put(&mut element, "value", value, query.shown);
    }
    match pair.revision {
        Revision(0) => element.insert("pending".into(), true.into()),
        revision => element.insert("revision".into(), revision.0.into()),
    };
    Value::Object(element)
}

/// The target of the next page.
fn next(query: &ListQuery, after: &[u8]) -> String {
    let mut next = format!("/v1/kv?after={}&limit={}", percent::encode(after), query.limit);
    if !query.prefix.is_empty() {
        next.push_str("&prefix=");
        next.push_str(&percent::encode(&query.prefix));
    }
    if query.level == Level::Eventual {
        next.push_str("&consistency=eventual");
    }
    if !query.values {
        next.push_str("&values=false");
    }
    if query.shown == bytes_json::Shown::Base64 {
        next.push_str("&encoding=base64");
    }
    next
}

fn answer(mut page: Pieces, next: Option<String>) -> Response<Body> {
    page.push(format!("],\"next\":{}}}", json!(next)));
    let mut response = document("application/json", page.into_body());
    // It is text without controls or angle brackets.
    let link = next.and_then(|next| HeaderValue::from_str(&format!("<{next}>; rel=\"next\"")).ok());
    if let Some(link) = link {
        response.headers_mut().insert(LINK, link);
    }
    response
}
