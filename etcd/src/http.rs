//! What both shells know of HTTP: bodies of answers, and the other end of a connection.

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

/// Why a body breaks off.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of any answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, BodyError>;

/// Boxes a body.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    body.map_err(Into::into).boxed_unsync()
}

/// What the face knows about the other end of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Peer {
    /// The common name of its verified certificate.
    pub(crate) certificate_name: Option<String>,
}
