//! The methods that programs call all the time, without tonic's layers between the request and the
//! method: a message in, a message out. Anything unusual, as a compressed message, is left to the
//! services.

#[cfg(test)]
mod tests;

use std::pin::Pin;
use std::task::{Context as Polling, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response};
use prost::Message;
use tonic::{Code as TonicCode, Status};

use super::{answered, context, refusal};
use crate::budget::RequestBytes;
use crate::error::EtcdError;
use crate::etcd::Etcd;
use crate::http::{Body, BodyError, Peer, boxed};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::method::Method;

/// Bytes before a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// Returns the method of a request that can be answered here.
pub(crate) fn method_of<B>(request: &Request<B>) -> Option<Method> {
    let method = match request.uri().path() {
        "/etcdserverpb.KV/Range" => Method::Range,
        "/etcdserverpb.KV/Put" => Method::Put,
        "/etcdserverpb.KV/Txn" => Method::Txn,
        "/etcdserverpb.KV/DeleteRange" => Method::DeleteRange,
        _ => return None,
    };
    let headers = request.headers();
    let is_plain = headers.get("grpc-encoding").is_none_or(|encoding| encoding == "identity");
    let is_grpc = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/grpc" || kind == "application/grpc+proto");
    (is_plain && is_grpc && request.method() == hyper::Method::POST).then_some(method)
}

/// Answers a request for a method of [`method_of`].
pub(crate) async fn call<B>(etcd: Etcd, method: Method, request: Request<B>) -> Response<Body>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let extensions = request.extensions();
    let bytes = extensions.get::<RequestBytes>().cloned();
    let context = context(request.headers(), extensions.get::<Peer>(), bytes);
    let message = match message(request.into_body()).await {
        Ok(message) => message,
        Err(status) => return refusal(status),
    };
    macro_rules! answer {
        ($name:ident) => {
            match Message::decode(message) {
                Ok(message) => {
                    let call = |etcd: Etcd, context, message| async move {
                        etcd.$name(&context, message).await
                    };
                    let answered = answered(&etcd, method, context, message, call).await;
                    answered.map_err(Status::from).and_then(|answer| framed(&answer))
                }
                Err(error) => Err(Status::internal(error.to_string())),
            }
        };
    }
    let answered = match method {
        Method::Put => answer!(put),
        Method::Txn => answer!(txn),
        Method::DeleteRange => answer!(delete_range),
        _ => answer!(range),
    };
    match answered {
        Ok(message) => whole(message),
        Err(status) => refusal(status),
    }
}

/// Returns an answer as it is on the wire.
fn framed<A: Message>(answer: &A) -> Result<Bytes, Status> {
    let length = answer.encoded_len();
    let mut framed = BytesMut::with_capacity(HEAD_BYTES + length);
    framed.put_u8(0);
    framed.put_u32(
        u32::try_from(length)
            .map_err(|_| Status::resource_exhausted("the answer is too long for one message"))?,
    );
    // There is room, so the length of a long answer is not found out once more.
    answer.encode_raw(&mut framed);
    Ok(framed.freeze())
}

/// Returns the message of a body. In most requests it is one frame, which is not copied.
async fn message<B>(mut body: B) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    let mut parts = Parts::default();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| body_failed(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if let Some(message) = parts.add(data)? {
            return ended(body).await.map(|()| message);
        }
    }
    Err(Status::internal("Missing request message."))
}

/// Waits for the end of a body. A stream that is answered before its client has ended it is reset.
async fn ended<B>(mut body: B) -> Result<(), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BodyError>,
{
    while !body.is_end_stream() {
        match body.frame().await {
            Some(frame) => _ = frame.map_err(|error| body_failed(error.into()))?,
            None => break,
        }
    }
    Ok(())
}

fn body_failed(error: BodyError) -> Status {
    match error.downcast::<EtcdError>() {
        Ok(error) => Status::from(*error),
        Err(error) => Status::unknown(error.to_string()),
    }
}

/// The parts of a message that have come.
#[derive(Default)]
struct Parts {
    before: BytesMut,
}

impl Parts {
    /// Adds a part; returns the message once it is whole. What follows it is not looked at.
    fn add(&mut self, data: Bytes) -> Result<Option<Bytes>, Status> {
        if self.before.is_empty() {
            let Some(length) = length(&data)? else {
                self.before.extend_from_slice(&data);
                return Ok(None);
            };
            if data.len() >= HEAD_BYTES + length {
                return Ok(Some(data.slice(HEAD_BYTES..HEAD_BYTES + length)));
            }
            self.before.reserve(HEAD_BYTES + length);
        }
        self.before.extend_from_slice(&data);
        let Some(length) = length(&self.before)? else { return Ok(None) };
        if self.before.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let mut whole = std::mem::take(&mut self.before).freeze();
        whole.advance(HEAD_BYTES);
        whole.truncate(length);
        Ok(Some(whole))
    }
}

/// Returns the length of a message; `None` if its head is not whole yet.
fn length(data: &[u8]) -> Result<Option<usize>, Status> {
    let Some((head, _)) = data.split_first_chunk::<HEAD_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *head;
    let length = u32::from_be_bytes(length) as usize;
    // In the words of the library that answers the other methods.
    if compressed != 0 {
        let why = "protocol error: received message with compressed-flag but no grpc-encoding was \
                   specified";
        return Err(Status::internal(why));
    }
    if length > MESSAGE_BYTES_MAX {
        let why = format!(
            "Error, decoded message length too large: found {length} bytes, the limit is: \
             {MESSAGE_BYTES_MAX} bytes"
        );
        return Err(Status::new(TonicCode::OutOfRange, why));
    }
    Ok(Some(length))
}

/// The body of an answer, of which this is left.
enum Answer {
    /// A message, and then the trailers of success.
    Message(Bytes),
    /// The trailers of success.
    Trailers,
    /// Nothing more.
    End,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Polling<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let (next, frame) = match &mut *self {
            Self::Message(message) => (Self::Trailers, Frame::data(std::mem::take(message))),
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                (Self::End, Frame::trailers(trailers))
            }
            Self::End => return Poll::Ready(None),
        };
        *self = next;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Message(_) | Self::Trailers => false,
            Self::End => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Message(message) => SizeHint::with_exact(message.len() as u64),
            Self::Trailers | Self::End => SizeHint::with_exact(0),
        }
    }
}

fn whole(message: Bytes) -> Response<Body> {
    let mut response = Response::new(boxed(Answer::Message(message)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
