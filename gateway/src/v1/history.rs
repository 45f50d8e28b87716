//! `/v1/history`: the versions of a key, newest first, a page at a time.

use axum::body::Body;
use axum::http::{Method, Response, Uri};
use bytes::Bytes;
use dkv_api::{GroupId, History, HistoryOptions, Revision, Version};
use serde_json::{Map, Value, json};

use super::keyspaces::{self, Keyspaced};
use super::list::turn;
use crate::body::ResponseParts;
use crate::bytes_json::{self, Encoding};
use crate::limits::{HISTORY_STEP_VERSIONS, PAGE_BYTES};
use crate::percent;
use crate::problem::Problem;
use crate::query::HistoryQuery;
use crate::response::{is_get, page_document};
use crate::state::Gateway;
use crate::store::Store;
use crate::version_json;

/// Answers a request for a page.
pub(super) async fn serve<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    method: Method,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD"));
    }
    page(&gateway, &HistoryQuery::parse(uri.query())?).await
}

async fn page<S: Store>(
    gateway: &Gateway<S>,
    query: &HistoryQuery,
) -> Result<Response<Body>, Problem> {
    let _turn = turn(gateway).await?;
    let (mut count, mut bytes, mut before) = (0, 0, query.before);
    let mut page = ResponseParts::default();
    let mut head = Map::new();
    bytes_json::put(&mut head, "key", &query.key, query.encoding);
    let head = Value::Object(head).to_string();
    page.push(format!("{},\"versions\":[", head.trim_end_matches('}')));
    loop {
        // In steps, because nothing tells the size of the versions in advance.
        let step = (query.limit - count).min(HISTORY_STEP_VERSIONS);
        let mut options = HistoryOptions::default().limit(step);
        options.before = before;
        let found = gateway.store.history(&query.key, options).await;
        let History { versions, more, floor, shard } =
            found.map_err(|error| Problem::from_error(error, false))?;
        for version in versions {
            let comma = if count > 0 { "," } else { "" };
            let text = Bytes::from(format!("{comma}{}", element(&version, query.encoding)));
            let room = gateway.budget.reserve(text.len());
            let room = room.map_err(|error| Problem::unavailable(error.to_string()))?;
            bytes += text.len();
            page.push_reserved(text, room);
            (count, before) = (count + 1, Some(version.revision));
        }
        let next = before
            .filter(|_| more)
            .map(|before| next(query, before) + &keyspaces::parameter(gateway));
        if next.is_none() || count == query.limit || bytes >= PAGE_BYTES {
            return Ok(answer(page, shard, floor, next));
        }
    }
}

fn element(version: &Version, encoding: Encoding) -> Value {
    let mut element = Map::new();
    version_json::put(&mut element, version, encoding);
    Value::Object(element)
}

/// Returns the target of the next page.
fn next(query: &HistoryQuery, before: Revision) -> String {
    let key = percent::encode(&query.key);
    let encoding = if query.encoding == Encoding::Base64 { "&encoding=base64" } else { "" };
    format!("/v1/history?key={key}&before={before}&limit={}{encoding}", query.limit)
}

fn answer(
    mut page: ResponseParts,
    shard: GroupId,
    floor: Revision,
    next: Option<String>,
) -> Response<Body> {
    let (shard, floor) = (shard.0, floor.0);
    let next_json = json!(next);
    page.push(format!("],\"shard\":{shard},\"floor_revision\":{floor},\"next\":{next_json}}}"));
    page_document(page, next)
}
