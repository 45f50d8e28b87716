//! The shell for JSON: etcd's gateway, `POST /v3/...`, over the methods of [`Etcd`].
//!
//! A message is its JSON form of proto3 with the names of the proto files: defaults are left out,
//! unknown fields are ignored, bytes are base64, and numbers of 64 bits are strings. The messages
//! of a stream are lines of `{"result":...}`.

pub(crate) mod answer;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use self::answer::{failure, json_len, lines, response, text_of};
use crate::budget::{RequestBytes, freed_when_handled};
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Answers, Etcd, Requests};
use crate::http::{Body, BodyError};
use crate::limits::JSON_BYTES_MAX;
use crate::method::Method;

/// Older prefixes of the paths; their interface is the same.
const OLD_PREFIXES: [&str; 2] = ["/v3beta/", "/v3alpha/"];

/// Returns the method at a path, of whichever version of the gateway.
pub(crate) fn method_at(path: &str) -> Option<Method> {
    let old = OLD_PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix));
    match old {
        Some(rest) => Method::at_path(&format!("/v3/{rest}")),
        None => Method::at_path(path),
    }
}

/// Answers a request for a method.
pub(crate) async fn call<B>(etcd: Etcd, method: Method, request: Request<B>) -> Response<Body>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    if request.method() != hyper::Method::POST {
        return failure(&EtcdError::new(Code::Unimplemented, "Method Not Allowed"));
    }
    let bytes = request.extensions().get::<RequestBytes>().cloned();
    let context = context(request.headers(), bytes);
    let body = match Limited::new(request.into_body(), JSON_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return failure(&body_error(error)),
    };
    let metrics = etcd.clone();
    metrics.metrics().started(method);
    metrics.metrics().received(method);
    let (code, answer) = dispatch(etcd, method, context, &body).await;
    metrics.metrics().handled(method, code);
    answer
}

/// Calls the method with a body.
async fn dispatch(
    etcd: Etcd,
    method: Method,
    context: Context,
    body: &[u8],
) -> (Code, Response<Body>) {
    macro_rules! unary {
        ($call:ident) => {
            match parse(body) {
                Ok(request) => {
                    let call = |etcd: Etcd, context: Context, request| async move {
                        etcd.$call(&context, request).await
                    };
                    let asked = context.clone();
                    let answer = etcd.answer_one(method, asked, request, call, json_len).await;
                    answered(answer, method, &context)
                }
                Err(error) => (error.code(), failure(&error)),
            }
        };
    }
    macro_rules! server_stream {
        ($call:ident) => {
            match parse(body) {
                Ok(request) => {
                    let answers = |etcd: Etcd, context, request| etcd.$call(context, request);
                    streamed(etcd.permitted(context.clone(), request, answers), context)
                }
                Err(error) => (error.code(), failure(&error)),
            }
        };
    }
    macro_rules! bidi_stream {
        ($call:ident) => {
            match parse_all(body) {
                Ok(requests) => {
                    let requests = freed_when_handled(requests, context.bytes.clone()).boxed();
                    streamed(etcd.$call(context.clone(), requests), context)
                }
                Err(error) => (error.code(), failure(&error)),
            }
        };
    }
    match method {
        Method::Range => unary!(range),
        Method::RangeStream => server_stream!(range_stream),
        Method::Put => unary!(put),
        Method::DeleteRange => unary!(delete_range),
        Method::Txn => unary!(txn),
        Method::Compact => unary!(compact),
        Method::Watch => bidi_stream!(watch),
        Method::LeaseGrant => unary!(lease_grant),
        Method::LeaseRevoke => unary!(lease_revoke),
        Method::LeaseKeepAlive => bidi_stream!(lease_keep_alive),
        Method::LeaseTimeToLive => unary!(lease_time_to_live),
        Method::LeaseLeases => unary!(lease_leases),
        Method::MemberAdd => unary!(member_add),
        Method::MemberRemove => unary!(member_remove),
        Method::MemberUpdate => unary!(member_update),
        Method::MemberList => unary!(member_list),
        Method::MemberPromote => unary!(member_promote),
        Method::Alarm => unary!(alarm),
        Method::Status => unary!(status),
        Method::Defragment => unary!(defragment),
        Method::Hash => unary!(hash),
        Method::HashKv => unary!(hash_kv),
        Method::Snapshot => server_stream!(snapshot),
        Method::MoveLeader => unary!(move_leader),
        Method::Downgrade => unary!(downgrade),
        Method::AuthEnable => unary!(auth_enable),
        Method::AuthDisable => unary!(auth_disable),
        Method::AuthStatus => unary!(auth_status),
        Method::Authenticate => unary!(authenticate),
        Method::UserAdd => unary!(user_add),
        Method::UserGet => unary!(user_get),
        Method::UserList => unary!(user_list),
        Method::UserDelete => unary!(user_delete),
        Method::UserChangePassword => unary!(user_change_password),
        Method::UserGrantRole => unary!(user_grant_role),
        Method::UserRevokeRole => unary!(user_revoke_role),
        Method::RoleAdd => unary!(role_add),
        Method::RoleGet => unary!(role_get),
        Method::RoleList => unary!(role_list),
        Method::RoleDelete => unary!(role_delete),
        Method::RoleGrantPermission => unary!(role_grant_permission),
        Method::RoleRevokePermission => unary!(role_revoke_permission),
        Method::Lock => unary!(lock),
        Method::Unlock => unary!(unlock),
        Method::Campaign => unary!(campaign),
        Method::Proclaim => unary!(proclaim),
        Method::Leader => unary!(leader),
        Method::Observe => server_stream!(observe),
        Method::Resign => unary!(resign),
    }
}

fn answered<A: Serialize>(
    answer: Result<A, EtcdError>,
    method: Method,
    context: &Context,
) -> (Code, Response<Body>) {
    let text = answer.and_then(|answer| {
        let text = text_of(&answer)?;
        // Most of it is taken already.
        match context.take_answer(text.len()) {
            Err(_) if method.changes() => Err(EtcdError::TIMEOUT),
            taken => taken.map(|()| text),
        }
    });
    match text {
        Ok(text) => (Code::Ok, response(StatusCode::OK, text)),
        Err(error) => (error.code(), failure(&error)),
    }
}

fn streamed<A>(answers: Answers<A>, context: Context) -> (Code, Response<Body>)
where
    A: Message + Serialize + 'static,
{
    (Code::Ok, lines(answers, context))
}

/// Returns the message of a body; an empty body is an empty message.
fn parse<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, EtcdError> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(malformed)
}

/// Returns the messages of a body, one after the other. The stream stays open after the last one: a
/// caller that wants no more answers closes the connection.
fn parse_all<Q: DeserializeOwned + Send + 'static>(body: &[u8]) -> Result<Requests<Q>, EtcdError> {
    let all = serde_json::Deserializer::from_slice(body).into_iter::<Q>();
    let all = all.map(|request| request.map_err(malformed)).collect::<Result<Vec<_>, _>>()?;
    Ok(futures::stream::iter(all.into_iter().map(Ok)).boxed())
}

/// Returns the error of a request whose body breaks off.
fn body_error(error: BodyError) -> EtcdError {
    match error.downcast::<EtcdError>() {
        Ok(error) => *error,
        Err(error) if error.is::<LengthLimitError>() => EtcdError::REQUEST_TOO_LARGE,
        Err(error) => EtcdError::new(Code::InvalidArgument, error.to_string()),
    }
}

fn malformed(error: serde_json::Error) -> EtcdError {
    EtcdError::new(Code::InvalidArgument, error.to_string())
}

fn context(headers: &HeaderMap, bytes: Option<RequestBytes>) -> Context {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let token = text(header::AUTHORIZATION)
        .or_else(|| text(header::HeaderName::from_static("grpc-metadata-token")))
        .or_else(|| text(header::HeaderName::from_static("grpc-metadata-authorization")));
    let hasleader = text(header::HeaderName::from_static("grpc-metadata-hasleader"));
    Context {
        token: token.map(str::to_owned),
        certificate_name: None,
        requires_leader: hasleader == Some("true"),
        deadline: None,
        bytes,
    }
}
