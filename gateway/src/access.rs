//! Access control: decides who may ask what, before anything else happens.
//!
//! Where tokens are required, a request carries one of the network's ([`dkv_wire::bearer`]) as
//! `Authorization: Bearer …`, and has the rights of that token and no more; the gateway never lends
//! its own. If the token names a user, the nodes judge each request by the user's policies, too.
//! This module verifies tokens against the authority's certificate and the deny list.
//!
//! Where none are required, usually on loopback, anyone who reaches the gateway may ask.
//! [`crate::same_origin`] judges requests of browsers first, with or without tokens.
//!
//! `/livez`, `/readyz` and the files of the page are public: they reveal nothing of the store.
//! Everything else gets a 401 before the gateway reads a key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use dkv_api::HolderId;
use dkv_base::sync::lock;
use dkv_wire::bearer::{Bearer, Rights, Verifier};
use dkv_wire::limits::BEARERS_SEEN_MAX;
use hyper::body::Body as _;

use crate::body::CallerQuotas;
use crate::denials;
use crate::limits::TOKENS_KNOWN_MAX;
use crate::problem::Problem;

/// Whether a holder is on the deny list.
pub type IsDenied = Arc<dyn Fn(HolderId) -> bool + Send + Sync>;

/// Who may ask.
#[derive(Clone)]
pub enum Access {
    /// Callers with a token.
    Tokens(Arc<Tokens>),
    /// All callers.
    Anybody,
}

/// Verifies tokens, and caches the valid ones.
pub struct Tokens {
    verifier: Verifier,
    is_denied: IsDenied,
    quotas: CallerQuotas,
    /// Last use of each token since [`take_seen`](Self::take_seen), in milliseconds since 1970.
    seen: Mutex<HashMap<HolderId, u64>>,
    known: Mutex<HashMap<String, Bearer>>,
}

impl Tokens {
    /// Verifies by the authority's certificate and the deny list.
    pub fn new(verifier: Verifier, is_denied: IsDenied) -> Self {
        let (quotas, seen, known) = (CallerQuotas::default(), Mutex::default(), Mutex::default());
        Self { verifier, is_denied, quotas, seen, known }
    }

    /// Returns the last use of each token since the previous call, in milliseconds since 1970.
    pub(crate) fn take_seen(&self) -> Vec<(HolderId, u64)> {
        let mut seen = lock(&self.seen);
        std::mem::take(&mut *seen).into_iter().take(BEARERS_SEEN_MAX).collect()
    }

    /// Records the use of a token.
    fn record_use(&self, bearer: &Bearer) {
        let mut seen = lock(&self.seen);
        if seen.len() < BEARERS_SEEN_MAX || seen.contains_key(&bearer.holder) {
            seen.insert(bearer.holder, now_ms());
        }
    }

    /// Returns the bearer of a valid token.
    ///
    /// # Errors
    /// The bearer of a token of the network that has expired or was revoked; `None` without any.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Bearer, Option<Bearer>> {
        let text = token_in(headers).ok_or(None)?;
        let known = lock(&self.known).get(text).copied();
        let bearer = match known {
            Some(bearer) => bearer,
            None => {
                // Checking a signature takes some 50 µs, and every request carries a token. One
                // that has expired is known, too: it may come over and over.
                let bearer = self.verifier.verify(text, 0).map_err(|_| None)?;
                let mut known = lock(&self.known);
                if known.len() >= TOKENS_KNOWN_MAX {
                    known.clear();
                }
                known.insert(text.to_owned(), bearer);
                bearer
            }
        };
        let has_expired = bearer.expires_ms.is_some_and(|end| end <= now_ms());
        if has_expired || (self.is_denied)(bearer.holder) { Err(Some(bearer)) } else { Ok(bearer) }
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tokens(_) => "Tokens",
            Self::Anybody => "Anybody",
        })
    }
}

/// The state of [`check`].
#[derive(Clone)]
pub(crate) struct AccessGuard {
    pub(crate) access: Access,
    /// Whether a path, beside those that are always public, needs no token.
    pub(crate) is_public: fn(&str) -> bool,
    /// Whether a path tells of the whole network, and so of keys that a user may not know of.
    pub(crate) is_of_network: fn(&str) -> bool,
    /// Whether the answer at a path goes on without end.
    pub(crate) is_stream: fn(&str) -> bool,
}

/// Passes a request on, or refuses it.
pub(crate) async fn check(
    State(guard): State<AccessGuard>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let authorized = guard.authorize(&head);
    let authorized = authorized.and_then(|bearer| match bearer {
        // A useless body would take memory.
        Some(it) if it.rights == Rights::Read && !reads_by_body(&head) && !body.is_end_stream() => {
            let why = "this token is read-only, and this request takes no body";
            let problem = Problem::new(StatusCode::FORBIDDEN, "read-only", why);
            Err(Refused::of(problem, Some(it)))
        }
        Some(it) if it.user.is_some() && (guard.is_of_network)(head.uri.path()) => {
            let why = "this shows the whole network, and this token is for what its user may see";
            let problem = Problem::new(StatusCode::FORBIDDEN, "denied", why);
            Err(Refused::of(problem, Some(it)))
        }
        other => Ok(other),
    });
    match authorized {
        Ok(bearer) => {
            // The handlers get the store for this user.
            if let Some(user) = bearer.and_then(|bearer| bearer.user) {
                head.extensions.insert(user);
            }
            let caller = match (&guard.access, bearer) {
                (Access::Tokens(tokens), Some(bearer)) => {
                    tokens.record_use(&bearer);
                    Some(tokens.quotas.caller(&bearer))
                }
                _ => None,
            };
            if (guard.is_stream)(head.uri.path()) {
                let recheck = Recheck { guard, head: Box::new(head.clone()) };
                head.extensions.insert(recheck);
            }
            let answering = next.run(Request::from_parts(head, body));
            match caller {
                Some(caller) => caller.scope(answering).await,
                None => answering.await,
            }
        }
        Err(Refused { problem, bearer }) => {
            let asked = (&head.method, &head.uri);
            denials::note(asked, &head.extensions, bearer.as_ref(), &problem.detail);
            let is_unauthorized = problem.status == StatusCode::UNAUTHORIZED;
            let mut response = problem.into_response();
            if is_unauthorized {
                let scheme = HeaderValue::from_static("Bearer realm=\"dkv\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

/// Repeats the check of a request whose answer goes on: its token may expire or be revoked
/// meanwhile.
#[derive(Clone)]
pub(crate) struct Recheck {
    guard: AccessGuard,
    head: Box<Parts>,
}

impl Recheck {
    /// Whether the request would still be passed on.
    pub(crate) fn holds(&self) -> bool {
        self.guard.authorize(&self.head).is_ok()
    }
}

/// Why a request is refused, and to whom, as far as its token says.
#[derive(Debug)]
struct Refused {
    problem: Box<Problem>,
    bearer: Option<Bearer>,
}

impl Refused {
    fn of(problem: Problem, bearer: Option<Bearer>) -> Self {
        Self { problem: Box::new(problem), bearer }
    }
}

impl AccessGuard {
    /// Checks whether a request may be answered, and returns the bearer of its token.
    fn authorize(&self, head: &Parts) -> Result<Option<Bearer>, Refused> {
        let Access::Tokens(tokens) = &self.access else { return Ok(None) };
        let path = head.uri.path();
        if is_always_public(path) || (self.is_public)(path) {
            return Ok(None);
        }
        let bearer = tokens.authenticate(&head.headers).map_err(|bearer| {
            let why = if head.headers.contains_key(AUTHORIZATION) {
                "the token is not accepted: it is not one of this network, has expired, or was \
                 revoked"
            } else {
                "a token is missing: send Authorization: Bearer TOKEN"
            };
            Refused::of(Problem::new(StatusCode::UNAUTHORIZED, "token", why), bearer)
        })?;
        match bearer.rights {
            Rights::Write => Ok(Some(bearer)),
            Rights::Read if is_reading(head) => Ok(Some(bearer)),
            Rights::Read => {
                let why = "this token is read-only";
                let problem = Problem::new(StatusCode::FORBIDDEN, "read-only", why);
                Err(Refused::of(problem, Some(bearer)))
            }
        }
    }
}

/// Returns the text of the token that a request shows.
fn token_in(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else { return None };
    let (scheme, text) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| text.trim())
}

/// Whether a path reveals nothing of the store, and needs no token.
fn is_always_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/" | "/openapi.json")
}

/// Whether the body of a request says what to read. The handlers of batches and
/// transactions make sure that these do not write.
fn reads_by_body(head: &Parts) -> bool {
    let path = head.uri.path();
    head.method == Method::POST && matches!(path, "/fetch" | "/query" | "/v1/batch" | "/v1/txn")
}

fn is_reading(head: &Parts) -> bool {
    reads_by_body(head) || matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
