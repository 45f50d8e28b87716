//! What a gateway counts, and the text in which it says so.
//!
//! Every request is of a kind, which is its path and method without the key, and has a status: so
//! the number of figures is bounded whatever is asked. Counting costs a few relaxed additions.

mod text;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use dkv_base::histogram::{BOUNDS_US, Histogram};

pub use self::text::{CONTENT_TYPE, Exposition, Family, Number};

/// Statuses that are counted one by one, from 100 on.
const STATUSES: usize = 500;

/// What requests are for. The names are those of the label `kind`.
const KINDS: [&str; 12] = [
    "get", "put", "delete", "list", "batch", "status", "health", "metrics", "kvs", "pairs", "page",
    "other",
];

/// Those that ask for keys.
const KINDS_OF_KEYS: [&str; 7] = ["get", "put", "delete", "list", "batch", "kvs", "pairs"];
/// The first status that says that the gateway or the network has failed.
const STATUS_FAILED: usize = 500;

/// The kind of a request, as a place in [`KINDS`].
fn kind(method: &Method, path: &str) -> usize {
    let name = match path {
        "/v1/kv" => "list",
        "/v1/batch" => "batch",
        "/v1/status" | "/v1/traffic" => "status",
        "/livez" | "/readyz" => "health",
        "/metrics" => "metrics",
        "/" | "/openapi.json" => "page",
        path if path.starts_with("/page/") => "page",
        "/set" | "/fetch" | "/query" => "pairs",
        path if path.starts_with("/v1/kv/") => match *method {
            Method::PUT => "put",
            Method::DELETE => "delete",
            _ => "get",
        },
        path if path.starts_with("/kvs") => "kvs",
        _ => "other",
    };
    KINDS.iter().position(|known| *known == name).unwrap_or(KINDS.len() - 1)
}

/// The counters of one gateway.
#[derive(Debug)]
pub struct Metrics {
    requests: Vec<[AtomicU64; STATUSES]>,
    times: [Histogram; KINDS.len()],
    under_way: AtomicU64,
    /// Connections that were accepted, and those that have ended.
    accepted: AtomicU64,
    ended: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Longest time of a write since this was last asked, in microseconds, and writes since then.
    slowest_write_us: AtomicU64,
    writes: AtomicU64,
}

/// Requests for keys, as they add up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    /// How long they took: how many were in each bucket of [`BOUNDS_US`] alone.
    pub(crate) buckets: Vec<u64>,
    /// Those that were answered with a status of 500 and above.
    pub(crate) failed: u64,
    /// Longest time of a write since the last of these, if there was one.
    pub(crate) slowest_write_us: Option<u64>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: (0..KINDS.len()).map(|_| [const { AtomicU64::new(0) }; STATUSES]).collect(),
            times: Default::default(),
            under_way: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            slowest_write_us: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        }
    }
}

impl Metrics {
    /// Counts a request that was answered.
    pub(crate) fn count(&self, method: &Method, path: &str, status: StatusCode, begun: Instant) {
        self.done(kind(method, path), status, begun);
    }

    fn done(&self, kind: usize, status: StatusCode, begun: Instant) {
        let place = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        if let (Some(statuses), Some(times)) = (self.requests.get(kind), self.times.get(kind)) {
            statuses[place].fetch_add(1, Ordering::Relaxed);
            times.add(begun.elapsed());
        }
    }

    fn wrote(&self, begun: Instant) {
        let time_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slowest_write_us.fetch_max(time_us, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests for keys so far.
    pub(crate) fn of_keys(&self) -> Traffic {
        let mut traffic = Traffic { buckets: vec![0; BOUNDS_US.len() + 1], ..Traffic::default() };
        for ((kind, times), statuses) in KINDS.iter().zip(&self.times).zip(&self.requests) {
            // What the page asks by itself is no traffic.
            if !KINDS_OF_KEYS.contains(kind) {
                continue;
            }
            for (sum, count) in traffic.buckets.iter_mut().zip(times.times().buckets) {
                *sum += count;
            }
            let failed = statuses.iter().skip(STATUS_FAILED - 100);
            traffic.failed += failed.map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        }
        let slowest_us = self.slowest_write_us.swap(0, Ordering::Relaxed);
        let has_written = self.writes.swap(0, Ordering::Relaxed) > 0;
        traffic.slowest_write_us = has_written.then_some(slowest_us);
        traffic
    }

    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were not answered yet.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> u64 {
        let ended = self.ended.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(ended)
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Puts all figures into a text.
    pub(crate) fn expose(&self, text: &mut Exposition) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut family =
            text.counter("dkv_http_requests_total", "Requests that were answered, by status.");
        for (kind, statuses) in KINDS.iter().zip(&self.requests) {
            for (place, count) in statuses.iter().enumerate() {
                let count = load(count);
                if count > 0 {
                    let status = (place + 100).to_string();
                    family.put(&[("kind", kind), ("status", &status)], count);
                }
            }
        }
        let mut family = text.histogram(
            "dkv_http_request_duration_seconds",
            "Time from the head of a request to the head of its answer.",
        );
        for (kind, times) in KINDS.iter().zip(&self.times) {
            let times = times.times();
            if times.count() > 0 {
                family.times(&[("kind", kind)], &times);
            }
        }
        text.gauge("dkv_http_requests_under_way", "Requests that were not answered yet.")
            .put(&[], load(&self.under_way));
        text.counter("dkv_http_connections_total", "Connections that were accepted.")
            .put(&[], load(&self.accepted));
        text.gauge("dkv_http_connections", "Connections that are open.").put(&[], self.open());
        text.counter("dkv_http_received_bytes_total", "Bytes that came over connections.")
            .put(&[], load(&self.received_bytes));
        text.counter("dkv_http_sent_bytes_total", "Bytes that went over connections.")
            .put(&[], load(&self.sent_bytes));
    }

    /// Requests that were answered, and the longest bound that so many of a thousand of them took,
    /// for the page.
    pub(crate) fn traffic(&self) -> serde_json::Value {
        let kinds = KINDS.iter().zip(&self.times).map(|(kind, times)| {
            let times = times.times();
            let entry = serde_json::json!({
                "count": times.count(), "sum_us": times.sum_us, "buckets": times.buckets.to_vec(),
            });
            ((*kind).to_owned(), entry)
        });
        let kinds: serde_json::Map<String, serde_json::Value> = kinds.collect();
        serde_json::json!({ "bounds_us": BOUNDS_US.to_vec(), "kinds": kinds })
    }
}

/// One request less is under way, however it ends.
struct UnderWay<'a>(&'a Metrics);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request.
pub(crate) async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let kind = kind(request.method(), request.uri().path());
    let is_write = KINDS_OF_KEYS.contains(&KINDS[kind])
        && matches!(*request.method(), Method::PUT | Method::DELETE | Method::POST);
    let begun = Instant::now();
    metrics.under_way.fetch_add(1, Ordering::Relaxed);
    let under_way = UnderWay(&metrics);
    let response = next.run(request).await;
    drop(under_way);
    metrics.done(kind, response.status(), begun);
    if is_write {
        metrics.wrote(begun);
    }
    response
}

/// The answer to `/metrics`.
pub(crate) fn answer(text: Exposition) -> Response<Body> {
    let mut response = Response::new(Body::from(text.finish()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_of_kinds() {
        let name = |method: Method, path: &str| KINDS[kind(&method, path)];
        assert_eq!(name(Method::GET, "/v1/kv/a"), "get");
        assert_eq!(name(Method::HEAD, "/v1/kv/a"), "get");
        assert_eq!(name(Method::PUT, "/v1/kv/a"), "put");
        assert_eq!(name(Method::GET, "/v1/kv"), "list");
        assert_eq!(name(Method::PUT, "/kvs/a"), "kvs");
        assert_eq!(name(Method::GET, "/nothing"), "other");
    }

    #[test]
    fn what_was_counted_is_said() {
        let metrics = Metrics::default();
        metrics.done(0, StatusCode::OK, Instant::now());
        metrics.done(0, StatusCode::from_u16(999).unwrap(), Instant::now());
        metrics.accepted();
        metrics.received(7);
        let mut text = Exposition::default();
        metrics.expose(&mut text);
        metrics.wrote(Instant::now());
        let traffic = metrics.of_keys();
        assert_eq!((traffic.buckets.iter().sum::<u64>(), traffic.failed), (2, 1));
        assert!(traffic.slowest_write_us.is_some());
        assert_eq!(metrics.of_keys().slowest_write_us, None);
        let text = text.finish();
        for line in [
            "dkv_http_requests_total{kind=\"get\",status=\"200\"} 1",
            "dkv_http_request_duration_seconds_count{kind=\"get\"} 2",
            "dkv_http_connections 1",
            "dkv_http_received_bytes_total 7",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in {text}");
        }
    }
}
