//! Answers of the JSON gateway.

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper::{Response, StatusCode, header};
use prost::Message;
use serde::Serialize;

use crate::answer::answers_that_fit;
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::Answers;
use crate::http::{Body, boxed};

/// Returns about how long the text of a message will be: base64 makes it a third longer.
pub(crate) fn json_len<A: Message>(answer: &A) -> usize {
    answer.encoded_len() / 3 * 4
}

/// Returns the text of a message.
///
/// # Errors
/// It has none, which would be a bug.
pub(crate) fn text_of<A: Serialize>(answer: &A) -> Result<Vec<u8>, EtcdError> {
    serde_json::to_vec(answer).map_err(|error| EtcdError::new(Code::Internal, error.to_string()))
}

/// Answers with an error, in the words of both versions of etcd's gateway.
pub(crate) fn failure(error: &EtcdError) -> Response<Body> {
    let status = StatusCode::from_u16(error.code().http_status());
    let text = serde_json::json!({
        "error": error.message(),
        "code": error.code() as u8,
        "message": error.message(),
        "details": [],
    });
    response(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), text.to_string().into_bytes())
}

/// Answers with the messages of a stream, a line each.
pub(crate) fn lines<A>(answers: Answers<A>, context: Context) -> Response<Body>
where
    A: Message + Serialize + 'static,
{
    let frames = answers_that_fit(answers, context, json_len).map(|answer| {
        let line = match answer.map(|answer| serde_json::to_value(&answer)) {
            Ok(Ok(answer)) => serde_json::json!({ "result": answer }),
            Ok(Err(error)) => stream_error(&EtcdError::new(Code::Internal, error.to_string())),
            Err(error) => stream_error(&error),
        };
        Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(format!("{line}\n"))))
    });
    let mut answer = Response::new(boxed(StreamBody::new(frames)));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    answer
}

/// Answers with a text.
pub(crate) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut answer = Response::new(boxed(Full::new(text.into())));
    *answer.status_mut() = status;
    answer
}

/// Answers with JSON.
pub(crate) fn response(status: StatusCode, text: Vec<u8>) -> Response<Body> {
    let mut answer = Response::new(boxed(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(JSON));
    answer
}

const JSON: &str = "application/json";

fn stream_error(error: &EtcdError) -> serde_json::Value {
    let status = error.code().http_status();
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    serde_json::json!({
        "error": {
            "grpc_code": error.code() as u8,
            "code": error.code() as u8,
            "http_code": status,
            "message": error.message(),
            "http_status": reason.unwrap_or_default(),
        }
    })
}
