//! `/v1/watch`: the changes of a key or of a range of keys, as server-sent events.
//!
//! | event | data |
//! |---|---|
//! | `begin` | the position at which the stream begins |
//! | `put`, `delete` | a change |
//! | `progress` | a shard, and the revision through which all of it was shown |
//! | `error` | a problem document; the stream ends |
//!
//! Each has the position after it as its id, except `error`. A client that reconnects with the last
//! id in `Last-Event-ID` misses no change and gets none twice; see [`super::watch_position`].
//!
//! The stream reads the next event of the watch only when the connection has taken the previous
//! one, so a reader that falls behind costs what the watch buffers, and a reader that has stopped
//! loses its connection by the usual time limit.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Extension, Request};
use axum::http::{HeaderName, HeaderValue, Method, Response};
use bytes::Bytes;
use dkv_api::{Error, WatchEvent, WatchOptions, WatchToken};
use futures::stream::{self, BoxStream, StreamExt};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::keyspaces::Keyspaced;
use super::sse;
use super::watch_position::Position;
use crate::access::Recheck;
use crate::body::{Budget, Caller, reserved};
use crate::bytes_json::Encoding;
use crate::limits::{ANSWER_PIECE_BYTES, WATCH_FIRST_TIMEOUT, WATCH_HEARTBEAT, WATCH_ROOM_TIMEOUT};
use crate::problem::Problem;
use crate::query::WatchQuery;
use crate::response::{document, is_get};
use crate::store::{Store, WatchFeed};
use crate::version_json;

/// The path of watches.
pub(super) const PATH: &str = "/v1/watch";

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// An event of the watch, with the position after it.
type Shown = Result<(WatchEvent, WatchToken), Error>;

/// Answers a request for a watch.
pub(super) async fn serve<S: Store>(
    Keyspaced(gateway): Keyspaced<S>,
    recheck: Option<Extension<Recheck>>,
    request: Request,
) -> Result<Response<Body>, Problem> {
    if !is_get(request.method()) {
        return Err(Problem::method("GET, HEAD"));
    }
    let WatchQuery { keys, from, previous, encoding } = WatchQuery::parse(request.uri().query())?;
    // What a client that reconnects has seen is later than where its first request began.
    let from = last_event_id(&request)?.or(from).map(|from| Position::parse(&from));
    let from = from.transpose().map_err(|error| Problem::invalid(error.to_string()))?;
    if request.method() == Method::HEAD {
        return Ok(answer(Body::empty()));
    }
    let caller = Caller::current();
    let too_many = || Problem::unavailable("too many watches are in progress");
    let permit = gateway.watches.clone().try_acquire_owned().map_err(|_| too_many())?;
    let own = caller.as_ref().map(|caller| caller.take_watch().ok_or_else(too_many));
    let permits = (permit, own.transpose()?);

    let mut options = WatchOptions::default().previous(previous);
    options.from = from.as_ref().map(|from| from.token().clone());
    let begun = gateway.store.watch(keys, options).await;
    let WatchFeed { token, mut events } =
        begun.map_err(|error| Problem::from_error(error, false))?;
    let first = match from {
        // A position that cannot be resumed is the first thing that the watch says.
        Some(_) => tokio::time::timeout(WATCH_FIRST_TIMEOUT, events.next()).await.ok().flatten(),
        None => None,
    };
    let first = first.transpose().map_err(|error| Problem::from_error(error, false))?;
    let mut position = from.unwrap_or_else(|| token.clone().into());
    position.begin(token);
    let id = position.to_string();
    let begin = sse::first_event("begin", &id, &json!({ "token": id }));
    let watch = RunningWatch {
        pieces: VecDeque::from([begin.into()]),
        first: first.map(Ok),
        events,
        position,
        previous,
        encoding,
        budget: gateway.budget.clone(),
        caller,
        recheck: recheck.map(|Extension(recheck)| recheck),
        stopping: gateway.stopping.subscribe(),
        is_over: false,
        _permits: permits,
    };
    Ok(answer(Body::from_stream(stream::unfold(watch, RunningWatch::next))))
}

/// Returns the value of `Last-Event-ID`, if there is one.
fn last_event_id(request: &Request) -> Result<Option<String>, Problem> {
    let mut fields = request.headers().get_all(LAST_EVENT_ID).iter();
    match (fields.next(), fields.next()) {
        (None, _) => Ok(None),
        (Some(id), None) => match id.to_str() {
            Ok(id) => Ok(Some(id.to_owned()).filter(|id| !id.is_empty())),
            Err(_) => Err(Problem::invalid("Last-Event-ID is not a position of a watch")),
        },
        (Some(_), Some(_)) => Err(Problem::invalid("there is more than one Last-Event-ID")),
    }
}

fn answer(body: Body) -> Response<Body> {
    let mut response = document("text/event-stream", body);
    // Asks proxies not to buffer the stream.
    let buffering = HeaderName::from_static("x-accel-buffering");
    response.headers_mut().insert(buffering, HeaderValue::from_static("no"));
    response
}

/// A watch whose answer goes on.
struct RunningWatch {
    /// The rest of the current event.
    pieces: VecDeque<Bytes>,
    /// The event that came before the answer began.
    first: Option<Shown>,
    events: BoxStream<'static, Shown>,
    position: Position,
    /// Whether changes come with the version before them.
    previous: bool,
    encoding: Encoding,
    budget: Budget,
    caller: Option<Caller>,
    /// Repeats the check that admitted the request.
    recheck: Option<Recheck>,
    stopping: watch::Receiver<bool>,
    /// Whether the stream ends after the current event.
    is_over: bool,
    _permits: (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>),
}

impl RunningWatch {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some((Ok(piece), self));
            }
            if self.is_over {
                return None;
            }
            let shown = match self.first.take() {
                Some(first) => Some(first),
                None => tokio::select! {
                    biased;
                    () = stopped(&mut self.stopping) => return None,
                    shown = self.events.next() => Some(shown?),
                    () = tokio::time::sleep(WATCH_HEARTBEAT) => None,
                },
            };
            // The token may have expired or been revoked since.
            if !self.recheck.as_ref().is_none_or(Recheck::holds) {
                return None;
            }
            match shown {
                None => self.pieces.push_back(Bytes::from_static(sse::COMMENT.as_bytes())),
                Some(Ok((event, token))) => {
                    if self.position.advance(&event, token) {
                        self.push(&event).await;
                    }
                }
                Some(Err(error)) => self.end(&Problem::from_error(error, false)),
            }
        }
    }

    /// Adds an event, once there is room for it.
    async fn push(&mut self, event: &WatchEvent) {
        let id = self.position.to_string();
        let (name, data) = match event {
            WatchEvent::Change(change) => {
                let name = if change.value.is_some() { "put" } else { "delete" };
                (name, version_json::change(change, self.previous, self.encoding))
            }
            WatchEvent::Progress { shard, revision } => {
                let progress = json!({ "shard": shard.0, "revision": revision.0, "token": id });
                ("progress", progress)
            }
            // An event of a kind that this interface does not have.
            _ => return,
        };
        let text = Bytes::from(sse::event(name, Some(&id), &data));
        let caller = self.caller.clone();
        let room = async {
            loop {
                let reserve = || self.budget.reserve(text.len());
                match Caller::in_name_of(caller.as_ref(), reserve) {
                    Ok(room) => return room,
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                }
            }
        };
        match tokio::time::timeout(WATCH_ROOM_TIMEOUT, room).await {
            Ok(room) => {
                let mut text = reserved(text, room);
                while text.len() > ANSWER_PIECE_BYTES {
                    self.pieces.push_back(text.split_to(ANSWER_PIECE_BYTES));
                }
                self.pieces.push_back(text);
            }
            // The client resumes after the last event that it got.
            Err(_) => self.end(&Problem::unavailable("too many bodies are in progress")),
        }
    }

    /// Ends the stream with a reason.
    fn end(&mut self, problem: &Problem) {
        self.pieces.push_back(sse::event("error", None, &problem.document()).into());
        self.is_over = true;
    }
}

/// Completes when the gateway stops. One that is served by something else never does.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    if stopping.wait_for(|stopping| *stopping).await.is_err() {
        std::future::pending().await
    }
}
