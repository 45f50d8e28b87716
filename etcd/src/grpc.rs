//! The shell for gRPC: tonic's services over the methods of [`Etcd`].
//!
//! Nothing outside of this module names tonic's requests and statuses.

pub(crate) mod direct;
mod kv;
mod lease;
mod watch;
mod auth;
mod recipes;
mod cluster;
mod maintenance;
#[cfg(test)]
mod tests;

use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use prost::Message;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tower::Service;

use crate::answer::answers_that_fit;
use crate::auth::Guarded;
use crate::budget::{RequestBytes, freed_when_handled};
use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Answers, Etcd, Requests};
use crate::http::{Body, BodyError, Peer, boxed};
use crate::limits::MESSAGE_BYTES_MAX;
use crate::method::{Kind, Method};
use crate::proto::DESCRIPTORS;
use crate::proto::etcdserverpb::auth_server::AuthServer;
use crate::proto::etcdserverpb::cluster_server::ClusterServer;
use crate::proto::etcdserverpb::kv_server::KvServer;
use crate::proto::etcdserverpb::lease_server::LeaseServer;
use crate::proto::etcdserverpb::maintenance_server::MaintenanceServer;
use crate::proto::etcdserverpb::watch_server::WatchServer;
use crate::proto::v3electionpb::election_server::ElectionServer;
use crate::proto::v3lockpb::lock_server::LockServer;

/// The messages of an answer that is a stream, as tonic wants them.
type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// Serves the services of a face.
#[derive(Clone)]
struct Shell {
    etcd: Etcd,
}

/// All services, as one that answers requests of HTTP.
#[derive(Clone)]
pub(crate) struct Services {
    routes: Routes,
}

impl Services {
    /// Answers a request.
    pub(crate) async fn call<B>(&mut self, request: hyper::Request<B>) -> hyper::Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        let request = request.map(|body| body.map_err(|error| body_status(error.into())));
        let Ok(answer) = self.routes.call(request).await;
        answer.map(boxed)
    }
}

/// Returns the status of a request whose body breaks off. tonic keeps the code of a status, and
/// calls any other error unknown.
fn body_status(error: BodyError) -> BodyError {
    match error.downcast::<EtcdError>() {
        Ok(error) => Box::new(Status::from(*error)),
        Err(error) => error,
    }
}

/// Returns whether the body of a request at a path is a stream of messages.
pub(crate) fn takes_many(path: &str) -> bool {
    let method = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    let is_many = |method: &Method, (service, name): (&str, &str)| {
        method.kind() == Kind::BidiStream && (method.service(), method.name()) == (service, name)
    };
    method.is_some_and(|(service, name)| {
        service.starts_with("grpc.reflection.")
            || Method::ALL.iter().any(|method| is_many(method, (service, name)))
    })
}

/// Refuses a request before a service has seen it.
pub(crate) fn refusal(error: impl Into<Status>) -> hyper::Response<Body> {
    let status: Status = error.into();
    status.into_http::<tonic::body::Body>().map(boxed)
}

/// Returns all services of a face, with health and reflection.
pub(crate) fn services(etcd: &Etcd) -> Services {
    let shell = Shell { etcd: etcd.clone() };
    let (_, health) = tonic_health::server::health_reporter();
    macro_rules! service {
        ($server:ident) => {
            $server::new(shell.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(usize::MAX)
        };
    }
    let mut routes = Routes::new(health)
        .add_service(service!(KvServer))
        .add_service(service!(WatchServer))
        .add_service(service!(LeaseServer))
        .add_service(service!(ClusterServer))
        .add_service(service!(MaintenanceServer))
        .add_service(service!(AuthServer))
        .add_service(service!(LockServer))
        .add_service(service!(ElectionServer));
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    if let Ok(service) = reflection().build_v1() {
        routes = routes.add_service(service);
    }
    if let Ok(service) = reflection().build_v1alpha() {
        routes = routes.add_service(service);
    }
    Services { routes: routes.prepare() }
}

impl Shell {
    /// Answers one message with one.
    async fn unary<Q: Guarded + Sync, A: Message, F>(
        &self,
        method: Method,
        request: Request<Q>,
        call: impl FnOnce(Etcd, Context, Q) -> F,
    ) -> Result<Response<A>, Status>
    where
        F: Future<Output = Result<A, EtcdError>>,
    {
        let context = context_of(&request);
        let answered = answered(&self.etcd, method, context, request.into_inner(), call).await;
        Ok(Response::new(answered?))
    }

    /// Answers one message with a stream.
    fn server_stream<Q: Guarded + Send + Sync + 'static, A: Message + 'static>(
        &self,
        method: Method,
        request: Request<Q>,
        call: impl FnOnce(Etcd, Context, Q) -> Answers<A> + Send + 'static,
    ) -> Result<Response<Stream<A>>, Status> {
        self.etcd.metrics().started(method);
        self.etcd.metrics().received(method);
        let context = context_of(&request);
        let answers = self.etcd.permitted(context.clone(), request.into_inner(), call);
        Ok(Response::new(self.answers(method, context, answers)))
    }

    /// Answers a stream with a stream. Each message of it says what the caller wants, so the method
    /// checks whether that is permitted.
    fn bidi_stream<Q: Send + 'static, A: Message + 'static>(
        &self,
        method: Method,
        request: Request<Streaming<Q>>,
        call: impl FnOnce(Etcd, Context, Requests<Q>) -> Answers<A>,
    ) -> Result<Response<Stream<A>>, Status> {
        self.etcd.metrics().started(method);
        let context = context_of(&request);
        let etcd = self.etcd.clone();
        let bytes = context.bytes.clone();
        let requests = freed_when_handled(request.into_inner(), bytes).map(move |message| {
            etcd.metrics().received(method);
            message.map_err(EtcdError::from)
        });
        let answers = call(self.etcd.clone(), context.clone(), requests.boxed());
        Ok(Response::new(self.answers(method, context, answers)))
    }

    fn answers<A: Message + 'static>(
        &self,
        method: Method,
        context: Context,
        answers: Answers<A>,
    ) -> Stream<A> {
        let mut answers = answers_that_fit(answers, context, A::encoded_len);
        let etcd = self.etcd.clone();
        let mut end = StreamEnd { etcd: etcd.clone(), method, code: Code::Canceled };
        let counted = stream::poll_fn(move |context| {
            let end = &mut end;
            let answer = ready!(answers.poll_next_unpin(context));
            match &answer {
                Some(Ok(_)) => etcd.metrics().sent(method),
                Some(Err(error)) => end.code = error.code(),
                None if end.code == Code::Canceled => end.code = Code::Ok,
                None => {}
            }
            Poll::Ready(answer.map(|answer| answer.map_err(Status::from)))
        });
        counted.boxed()
    }
}

/// Answers a message with one, and counts it.
async fn answered<Q: Guarded + Sync, A: Message, F>(
    etcd: &Etcd,
    method: Method,
    context: Context,
    message: Q,
    call: impl FnOnce(Etcd, Context, Q) -> F,
) -> Result<A, EtcdError>
where
    F: Future<Output = Result<A, EtcdError>>,
{
    let metrics = etcd.metrics();
    metrics.started(method);
    metrics.received(method);
    let answered = etcd.answer_one(method, context, message, call, A::encoded_len).await;
    match &answered {
        Ok(_) => {
            metrics.sent(method);
            metrics.handled(method, Code::Ok);
        }
        Err(error) => metrics.handled(method, error.code()),
    }
    answered
}

/// Counts the end of a stream, whichever side ends it.
struct StreamEnd {
    etcd: Etcd,
    method: Method,
    code: Code,
}

impl Drop for StreamEnd {
    fn drop(&mut self) {
        self.etcd.metrics().handled(self.method, self.code);
    }
}

/// Returns what a request says beside its message.
fn context_of<T>(request: &Request<T>) -> Context {
    let extensions = request.extensions();
    let bytes = extensions.get::<RequestBytes>().cloned();
    context(request.metadata().as_ref(), extensions.get::<Peer>(), bytes)
}

/// Returns what the head of a request says.
fn context(headers: &HeaderMap, peer: Option<&Peer>, bytes: Option<RequestBytes>) -> Context {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    Context {
        token: text("token").or_else(|| text("authorization")).map(str::to_owned),
        certificate_name: peer.and_then(|peer| peer.certificate_name.clone()),
        requires_leader: text("hasleader") == Some("true"),
        deadline: timeout(headers).and_then(|timeout| Instant::now().checked_add(timeout)),
        bytes,
    }
}

/// Returns the time limit of a request: up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Self {
        Self::new(tonic::Code::from_i32(error.code() as i32), error.message())
    }
}

impl From<Status> for EtcdError {
    fn from(status: Status) -> Self {
        let code = Code::ALL.get(status.code() as usize).copied().unwrap_or(Code::Unknown);
        Self::new(code, status.message().to_owned())
    }
}

/// Implements the unary methods of a service.
macro_rules! unary_methods {
    ($($method:ident $name:ident($request:ty) -> $response:ty;)*) => {
        $(
            fn $name<'a, 'b>(
                &'a self,
                request: tonic::Request<$request>,
            ) -> futures::future::BoxFuture<
                'b,
                Result<tonic::Response<$response>, tonic::Status>,
            >
            where
                'a: 'b,
                Self: 'b,
            {
                Box::pin(self.unary(
                    crate::method::Method::$method,
                    request,
                    |etcd, context, message| async move { etcd.$name(&context, message).await },
                ))
            }
        )*
    };
}
use unary_methods;
