//! Keyspaces: the one that a request names with `?keyspace=`, and `/v1/keyspaces`.

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Response, Uri};
use serde_json::{Value, json};

use crate::keyspace_json;
use crate::limits::QUERY_BYTES_MAX;
use crate::percent;
use crate::problem::Problem;
use crate::query::{self, QueryError};
use crate::response::{document, is_get};
use crate::state::{Gateway, Shared};
use crate::store::Store;

/// The name of the parameter.
const PARAMETER: &str = "keyspace";

/// The gateway in front of the keyspace that a request names. Removes the parameter from the target
/// of the request, so that what reads the query afterwards does not meet it.
pub(crate) struct Keyspaced<S>(pub(crate) Gateway<S>);

impl<S: Store> FromRequestParts<Shared<S>> for Keyspaced<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared<S>) -> Result<Self, Problem> {
        let gateway = shared.for_caller(parts);
        let Some((name, rest)) = take_name(parts.uri.query())? else {
            return Ok(Self(gateway));
        };
        parts.uri = with_query(&parts.uri, &rest)?;
        let store = gateway.store.keyspace(&name).await;
        let store = store.map_err(|error| Problem::from_error(error, false))?;
        Ok(Self(Gateway { store, keyspace: Some(name.into()), ..gateway }))
    }
}

/// Returns the keyspace that a query names, and the rest of the query.
fn take_name(query: Option<&str>) -> Result<Option<(String, String)>, QueryError> {
    // The handler refuses a longer one.
    let Some(query) = query.filter(|query| query.len() <= QUERY_BYTES_MAX) else {
        return Ok(None);
    };
    let is_named = |field: &&str| field.split('=').next() == Some(PARAMETER);
    let mut named = query.split('&').filter(is_named);
    let Some(field) = named.next() else { return Ok(None) };
    if named.next().is_some() {
        return Err(QueryError::Repeated(PARAMETER.to_owned()));
    }
    let value = field.split_once('=').map_or("", |(_, value)| value);
    let name = percent::decode(value.as_bytes()).ok();
    let name = name.and_then(|name| String::from_utf8(name.into_owned()).ok());
    let name = name.filter(|name| dkv_wire::name::check_name(name).is_ok());
    let expected = "the name of a keyspace: 1 to 64 letters, digits, '-', '_' or '.'".to_owned();
    let wrong = QueryError::Value { name: PARAMETER.to_owned(), expected };
    let name = name.ok_or(wrong)?;
    let rest: Vec<&str> = query.split('&').filter(|field| !is_named(field)).collect();
    Ok(Some((name, rest.join("&"))))
}

fn with_query(uri: &Uri, query: &str) -> Result<Uri, Problem> {
    let target = match query {
        "" => uri.path().to_owned(),
        query => format!("{}?{query}", uri.path()),
    };
    let invalid = |_| Problem::invalid("the target of the request is malformed");
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse::<PathAndQuery>().map_err(invalid)?);
    Uri::from_parts(parts).map_err(|_| Problem::invalid("the target of the request is malformed"))
}

/// Returns what the target of a further page has to name, if this request named a keyspace.
pub(super) fn parameter<S>(gateway: &Gateway<S>) -> String {
    gateway.keyspace.as_ref().map_or_else(String::new, |name| format!("&{PARAMETER}={name}"))
}

/// `/v1/keyspaces`: all keyspaces, with the size of what they hold.
pub(super) async fn serve<S: Store>(
    gateway: Gateway<S>,
    method: Method,
    uri: Uri,
) -> Result<Response<Body>, Problem> {
    if !is_get(&method) {
        return Err(Problem::method("GET, HEAD"));
    }
    query::expect_none(uri.query())?;
    let all = gateway.store.keyspaces().await;
    let all = all.map_err(|error| Problem::from_error(error, false))?;
    let all: Vec<Value> = all.iter().map(keyspace_json::object).collect();
    Ok(document("application/json", json!({ "keyspaces": all }).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameter_is_taken_out_of_the_query() {
        let taken = |query| take_name(Some(query)).unwrap();
        let some = |name: &str, rest: &str| Some((name.to_owned(), rest.to_owned()));
        assert_eq!(taken("keyspace=orders"), some("orders", ""));
        assert_eq!(taken("a=1&keyspace=o%72ders&b=2"), some("orders", "a=1&b=2"));
        assert_eq!(taken("keyspaces=x&a=keyspace"), None);
        assert_eq!(take_name(None), Ok(None));
        for wrong in [
            "keyspace=",
            "keyspace",
            "keyspace=a%20b",
            "keyspace=%ff",
            "keyspace=%",
            "keyspace=-a",
            "keyspace=a&keyspace=b",
        ] {
            assert!(take_name(Some(wrong)).is_err(), "{wrong}");
        }
        let uri: Uri = "/v1/kv/a%2Fb?keyspace=x&revision=3".parse().unwrap();
        assert_eq!(with_query(&uri, "revision=3").unwrap(), "/v1/kv/a%2Fb?revision=3");
        assert_eq!(with_query(&uri, "").unwrap(), "/v1/kv/a%2Fb");
    }
}
