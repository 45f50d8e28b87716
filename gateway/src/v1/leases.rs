//! `/v1/leases`: grants, keeps, shows and ends leases.
//!
//! | request | what it does |
//! |---|---|
//! | `POST /v1/leases?ttl=MS` | grants a lease |
//! | `GET /v1/leases` | lists leases, a page at a time |
//! | `GET /v1/leases/{id}` | shows a lease and its first keys |
//! | `POST /v1/leases/{id}/keep` | gives it its full time again |
//! | `DELETE /v1/leases/{id}` | ends it, and deletes its keys |

#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::body::Body;
use axum::extract::Path;
use axum::http::header::LOCATION;
use axum::http::{HeaderValue, Method, Response, StatusCode, Uri};
use bytes::Bytes;
use dkv_api::{Error, LeaseId, LeaseInfo};
use serde_json::{Value, json};

use super::keyspaces::{self, Keyspaced};
use super::list::turn;
use crate::body::ResponseParts;
use crate::lease_json::{self, whole_ms};
use crate::problem::Problem;
use crate::query::{self, GrantQuery, LeaseQuery, LeasesQuery};
use crate::response::{document, is_get, page_document};
use crate::state::Gateway;
use crate::store::Store;

/// Grants a lease, or lists all.
pub(super) async fn all<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    method: Method,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    match method {
        Method::POST => {
            let GrantQuery { ttl } = GrantQuery::parse(uri.query())?;
            let lease = gateway.store.grant_lease(ttl).await.map_err(problem)?;
            let said = json!({ "lease": lease.to_string(), "ttl_ms": whole_ms(ttl) });
            let mut response = document("application/json", said.to_string());
            *response.status_mut() = StatusCode::CREATED;
            let query = keyspaces::parameter(&gateway).replacen('&', "?", 1);
            if let Ok(place) = HeaderValue::from_str(&format!("/v1/leases/{lease}{query}")) {
                response.headers_mut().insert(LOCATION, place);
            }
            Ok(response)
        }
        _ if is_get(&method) => page(&gateway, &LeasesQuery::parse(uri.query())?).await,
        _ => Err(Problem::method("GET, HEAD, POST")),
    }
}

/// Shows a lease, or ends it.
pub(super) async fn one<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    if method == Method::DELETE {
        query::expect_none(uri.query())?;
        let lease = id_of(&id)?;
        let deleted = gateway.store.revoke_lease(lease).await.map_err(problem)?;
        let said = json!({ "lease": lease.to_string(), "deleted": deleted });
        return Ok(document("application/json", said.to_string()));
    }
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD, DELETE"));
    }
    let LeaseQuery { limit, encoding } = LeaseQuery::parse(uri.query())?;
    let lease = id_of(&id)?;
    let _turn = turn(&gateway).await?;
    let info = gateway.store.lease(lease).await.map_err(problem)?;
    let found = gateway.store.lease_keys(lease, limit).await.map_err(problem)?;
    let said = lease_json::lease_with_keys(&info, &found, encoding);
    let body = gateway.budget.answer(Bytes::from(said.to_string()));
    let body = body.map_err(|error| Problem::unavailable(error.to_string()))?;
    Ok(document("application/json", body))
}

/// Gives a lease its full time again.
pub(super) async fn keep<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    Path(id): Path<String>,
    method: Method,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    if method != Method::POST {
        return Err(Problem::method("POST"));
    }
    query::expect_none(uri.query())?;
    let lease = id_of(&id)?;
    let remaining: Duration = gateway.store.refresh_lease(lease).await.map_err(problem)?;
    let said = json!({ "lease": lease.to_string(), "remaining_ms": whole_ms(remaining) });
    Ok(document("application/json", said.to_string()))
}

async fn page<S: Store>(
    gateway: &Gateway<S>,
    query: &LeasesQuery,
) -> Result<Response<Body>, Problem> {
    let _turn = turn(gateway).await?;
    let leases = gateway.store.leases().await.map_err(problem)?;
    let after = |lease: &&LeaseInfo| query.after.is_none_or(|after| lease.id > after);
    let mut leases = leases.iter().filter(after);
    let shown: Vec<&LeaseInfo> = leases.by_ref().take(query.limit).collect();
    let last = shown.last().map(|lease| lease.id).filter(|_| leases.next().is_some());
    let next = last.map(|last| format!("/v1/leases?after={last}&limit={}", query.limit));
    let next = next.map(|next| next + &keyspaces::parameter(gateway));
    let listed: Vec<Value> = shown.into_iter().map(lease_json::lease).collect();
    let mut page = ResponseParts::default();
    let text = Bytes::from(json!({ "leases": listed, "next": next }).to_string());
    let room = gateway.budget.reserve(text.len());
    page.push_reserved(text, room.map_err(|error| Problem::unavailable(error.to_string()))?);
    Ok(page_document(page, next))
}

fn id_of(text: &str) -> Result<LeaseId, Problem> {
    text.parse().map_err(|error: dkv_base::id::BadLeaseId| Problem::invalid(error.to_string()))
}

/// The lease is what the path names, so it is not found.
fn problem(error: Error) -> Problem {
    match error {
        Error::NoLease { .. } => Problem::new(StatusCode::NOT_FOUND, "no-lease", error.to_string()),
        // To grant another lease does no harm, and the first one ends by itself.
        other => Problem::from_error(other, false),
    }
}
