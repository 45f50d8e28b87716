//! Tests of the shell for gRPC.

use bytes::Bytes;
use futures::stream;
use http_body_util::StreamBody;
use hyper::Request;
use hyper::body::Frame;
use tonic::service::Routes;

use super::Services;
use crate::error::EtcdError;
use crate::http::BodyError;

/// Returns the code and the text of the answer to a request whose body breaks off.
async fn refused(error: BodyError) -> (String, String) {
    let (_, health) = tonic_health::server::health_reporter();
    let mut services = Services { routes: Routes::new(health).prepare() };
    let frames = stream::iter([Err::<Frame<Bytes>, BodyError>(error)]);
    let request = Request::post("/grpc.health.v1.Health/Check")
        .header("content-type", "application/grpc")
        .body(StreamBody::new(frames))
        .expect("a request");
    let answer = services.call(request).await;
    let header = |name| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    (header("grpc-status"), header("grpc-message"))
}

#[tokio::test]
async fn a_request_without_room_for_its_bytes_is_refused_as_etcd_does() {
    let (code, text) = refused(EtcdError::REQUEST_TOO_MANY_REQUESTS.into()).await;
    assert_eq!((&code[..], &text[..]), ("8", "etcdserver:%20too%20many%20requests"));
    assert_eq!(refused("the connection is gone".into()).await.0, "2");
}
