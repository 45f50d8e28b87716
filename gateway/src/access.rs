//! Who may ask what, before anything is looked at.
//!
//! Where tokens are asked for, a request shows one of the network's ([`dkv_wire::bearer`]) as
//! `Authorization: Bearer …`, and has the rights of that token and no more: the gateway's own never
//! serve anybody. Tokens are judged here, by the authority's certificate and the deny list.
//!
//! Where none are asked for, which is on loopback as a rule, whoever reaches the gateway may ask;
//! what a browser may ask for its pages is judged before, with or without tokens
//! ([`crate::same_origin`]).
//!
//! `/livez`, `/readyz` and the files of the page are for everybody: they tell nothing of the store.
//! Everything else is answered with 401 before a key is looked at.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use axum::middleware::Next;
use axum::response::IntoResponse;
use dkv_api::HolderId;
use dkv_wire::bearer::{Bearer, Rights, Verifier};
use dkv_wire::limits::BEARERS_SEEN_MAX;
use hyper::body::Body as _;

use crate::body::Shares;
use crate::limits::TOKENS_KNOWN_MAX;
use crate::page;
use crate::problem::Problem;

/// Whether a holder is denied.
pub type IsDenied = Arc<dyn Fn(HolderId) -> bool + Send + Sync>;

/// Who may ask.
#[derive(Clone)]
pub enum Access {
    /// Whoever shows a token.
    Tokens(Arc<Tokens>),
    /// Whoever reaches it.
    Anybody,
}

/// Judges tokens, and remembers those that were good.
pub struct Tokens {
    verifier: Verifier,
    is_denied: IsDenied,
    shares: Shares,
    /// When tokens were shown last that nobody has been told of, in milliseconds since 1970.
    seen: Mutex<HashMap<HolderId, u64>>,
    known: Mutex<HashMap<String, Bearer>>,
}

impl Tokens {
    /// By the authority's certificate and the deny list.
    pub fn new(verifier: Verifier, is_denied: IsDenied) -> Self {
        let (shares, seen, known) = (Shares::default(), Mutex::default(), Mutex::default());
        Self { verifier, is_denied, shares, seen, known }
    }

    /// When which tokens were shown last, since this was asked before.
    pub(crate) fn take_seen(&self) -> Vec<(HolderId, u64)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen).into_iter().take(BEARERS_SEEN_MAX).collect()
    }

    /// Notes that a token was shown.
    fn note(&self, bearer: &Bearer) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < BEARERS_SEEN_MAX || seen.contains_key(&bearer.holder) {
            seen.insert(bearer.holder, now_ms());
        }
    }

    fn judge(&self, headers: &HeaderMap) -> Option<Bearer> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (scheme, text) = field.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let (text, now_ms) = (text.trim(), now_ms());
        let known = self.lock().get(text).copied();
        let bearer = match known {
            Some(bearer) if bearer.expires_ms.is_none_or(|end| end > now_ms) => bearer,
            _ => {
                // A signature takes some 50 µs to check; a token is shown with every request.
                let bearer = self.verifier.verify(text, now_ms).ok()?;
                let mut known = self.lock();
                if known.len() >= TOKENS_KNOWN_MAX {
                    known.clear();
                }
                known.insert(text.to_owned(), bearer);
                bearer
            }
        };
        (!(self.is_denied)(bearer.holder)).then_some(bearer)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Bearer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Lets a request through, or refuses it.
pub(crate) async fn check(
    State(access): State<Access>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let (mut head, body) = request.into_parts();
    let judged = judge(&access, &head);
    let judged = judged.and_then(|bearer| match bearer {
        // What it sends is held in memory, for nothing.
        Some(it) if it.rights == Rights::Read && !asks(&head) && !body.is_end_stream() => {
            let why = "this token is for reading only, and this request takes no body";
            Err(Problem::new(StatusCode::FORBIDDEN, "read-only", why))
        }
        other => Ok(other),
    });
    match judged {
        Ok(bearer) => {
            let asker = match (&access, bearer) {
                (Access::Tokens(tokens), Some(bearer)) => {
                    tokens.note(&bearer);
                    Some(tokens.shares.of(&bearer))
                }
                _ => None,
            };
            if page::is_stream(head.uri.path()) {
                let again = Again { access, head: Box::new(head.clone()) };
                head.extensions.insert(again);
            }
            let answering = next.run(Request::from_parts(head, body));
            match asker {
                Some(asker) => asker.ask(answering).await,
                None => answering.await,
            }
        }
        Err(problem) => {
            let unknown = problem.status == StatusCode::UNAUTHORIZED;
            let mut response = problem.into_response();
            if unknown {
                let scheme = HeaderValue::from_static("Bearer realm=\"dkv\"");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

/// Judges the request of an answer that goes on for long again: a right may end meanwhile.
#[derive(Clone)]
pub(crate) struct Again {
    access: Access,
    head: Box<Parts>,
}

impl Again {
    /// Whether it would still be let through.
    pub(crate) fn holds(&self) -> bool {
        judge(&self.access, &self.head).is_ok()
    }
}

/// Whether a request may be answered, and whose token it shows.
fn judge(access: &Access, head: &Parts) -> Result<Option<Bearer>, Problem> {
    match access {
        Access::Anybody => Ok(None),
        Access::Tokens(_) if is_public(head.uri.path()) => Ok(None),
        Access::Tokens(tokens) => {
            let Some(bearer) = tokens.judge(&head.headers) else {
                let why = if head.headers.contains_key(AUTHORIZATION) {
                    "the token is not accepted: it is not one of this network, has expired, or was \
                     revoked"
                } else {
                    "a token is missing: send Authorization: Bearer TOKEN"
                };
                return Err(Problem::new(StatusCode::UNAUTHORIZED, "token", why));
            };
            match bearer.rights {
                Rights::Write => Ok(Some(bearer)),
                Rights::Read if is_reading(head) => Ok(Some(bearer)),
                Rights::Read => Err(Problem::new(
                    StatusCode::FORBIDDEN,
                    "read-only",
                    "this token is for reading only",
                )),
            }
        }
    }
}

/// What tells nothing of the store.
fn is_public(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/" | "/openapi.json") || page::is_file(path)
}

/// Whether a body says what is to be read. Of a batch, whoever takes it makes sure that it is so.
fn asks(head: &Parts) -> bool {
    let path = head.uri.path();
    head.method == Method::POST && matches!(path, "/fetch" | "/query" | "/v1/batch")
}

fn is_reading(head: &Parts) -> bool {
    asks(head) || matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS)
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use dkv_api::{NetworkId, Uuid};
    use dkv_wire::bearer;
    use dkv_wire::certificate::Authority;

    use super::*;

    fn head(method: &str, target: &str, fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(Body::empty()).unwrap().into_parts().0
    }

    fn status(access: &Access, method: &str, target: &str, fields: &[(&str, &str)]) -> u16 {
        let judged = judge(access, &head(method, target, fields));
        judged.map_or_else(|problem| problem.status.as_u16(), |_| 200)
    }

    #[test]
    fn a_token_gives_its_rights_and_no_more() {
        let network = NetworkId(Uuid::from_u128(7));
        let authority = Authority::create(network, SystemTime::now()).unwrap();
        let token = |number: u128, rights, expires_ms| {
            let holder = HolderId(Uuid::from_u128(number));
            let bearer = Bearer { network, holder, rights, expires_ms };
            format!("Bearer {}", bearer::sign(&authority, &bearer).unwrap())
        };
        let verifier = Verifier::new(network, authority.certificate()).unwrap();
        let is_denied: IsDenied = Arc::new(|holder| holder == HolderId(Uuid::from_u128(3)));
        let access = Access::Tokens(Arc::new(Tokens::new(verifier, is_denied)));
        let put = |field: &str| status(&access, "PUT", "/v1/kv/k", &[("authorization", field)]);
        let get = |field: &str| status(&access, "GET", "/v1/kv/k", &[("authorization", field)]);
        let (writer, reader) = (token(1, Rights::Write, None), token(2, Rights::Read, None));
        for _ in 0..2 {
            assert_eq!(
                (put(&writer), get(&writer), get(&reader), put(&reader)),
                (200, 200, 200, 403)
            );
        }
        let query = |field| status(&access, "POST", "/query", &[("authorization", field)]);
        assert_eq!(query(&reader), 200);
        let (denied, ended) = (token(3, Rights::Write, None), token(1, Rights::Write, Some(1)));
        for bad in [denied.as_str(), &ended, "", "Bearer", "Bearer x", "Basic YTpi", &writer[7..]] {
            assert_eq!(get(bad), 401, "{bad}");
        }
        assert_eq!(status(&access, "GET", "/metrics", &[]), 401);
        assert_eq!(status(&access, "GET", "/livez", &[]), 200);
        let both = [("authorization", writer.as_str()), ("authorization", &reader)];
        assert_eq!(status(&access, "GET", "/v1/kv/k", &both), 401);
    }
}
