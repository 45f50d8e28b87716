//! The counters of a gateway, and their text for Prometheus.
//!
//! Each request has a kind, which is its path and method without the key, and a status, so the
//! number of series is bounded whatever clients ask for. Counting costs a few relaxed additions.

mod exposition;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::Next;
use dkv_base::audit::{self, AuditFigures};
use dkv_base::histogram::{BOUNDS_US, Histogram};

pub use self::exposition::{CONTENT_TYPE, Exposition, Family, MetricValue};

/// Number of statuses with a counter of their own, from 100 on.
const STATUSES: usize = 500;

/// The kinds of requests: the values of the label `kind`.
const KINDS: [&str; 18] = [
    "get",
    "put",
    "delete",
    "increment",
    "append",
    "list",
    "history",
    "watch",
    "batch",
    "txn",
    "leases",
    "status",
    "health",
    "metrics",
    "kvs",
    "pairs",
    "page",
    "other",
];

/// The kinds that access keys.
const KEY_KINDS: [&str; 11] = [
    "get",
    "put",
    "delete",
    "increment",
    "append",
    "list",
    "history",
    "batch",
    "txn",
    "kvs",
    "pairs",
];
/// The first status by which the gateway or the network admits a failure.
const FIRST_FAILURE: usize = 500;

/// Returns the kind of a request, as an index into [`KINDS`].
fn kind(method: &Method, path: &str) -> usize {
    let name = match path {
        "/v1/kv" => "list",
        "/v1/history" => "history",
        "/v1/watch" => "watch",
        "/v1/batch" => "batch",
        "/v1/txn" => "txn",
        "/v1/leases" => "leases",
        "/v1/status" | "/v1/traffic" | "/v1/keyspaces" => "status",
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
        path if path.starts_with("/v1/leases/") => "leases",
        path if path.starts_with("/v1/increment/") => "increment",
        path if path.starts_with("/v1/append/") => "append",
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
    /// Requests in progress.
    under_way: AtomicU64,
    /// Connections accepted so far.
    accepted: AtomicU64,
    /// Connections ended so far.
    ended: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Longest write since [`key_traffic`](Self::key_traffic), in microseconds.
    slowest_write_us: AtomicU64,
    /// Writes since then.
    writes: AtomicU64,
}

/// Cumulative counts of requests that access keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyTraffic {
    /// Requests by duration, in the buckets of [`BOUNDS_US`]; not cumulative over the buckets.
    pub(crate) buckets: Vec<u64>,
    /// Requests answered with a status of 500 or above.
    pub(crate) failed: u64,
    /// Longest write since the previous snapshot, in microseconds; `None` without writes.
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
    /// Counts an answered request.
    pub(crate) fn count(&self, method: &Method, path: &str, status: StatusCode, begun: Instant) {
        self.count_kind(kind(method, path), status, begun);
    }

    fn count_kind(&self, kind: usize, status: StatusCode, begun: Instant) {
        let place = usize::from(status.as_u16()).saturating_sub(100).min(STATUSES - 1);
        if let (Some(statuses), Some(times)) = (self.requests.get(kind), self.times.get(kind)) {
            statuses[place].fetch_add(1, Ordering::Relaxed);
            times.add(begun.elapsed());
        }
    }

    fn count_write(&self, begun: Instant) {
        let time_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.slowest_write_us.fetch_max(time_us, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the counts of requests that access keys, and resets the longest write.
    pub(crate) fn key_traffic(&self) -> KeyTraffic {
        let buckets = vec![0; BOUNDS_US.len() + 1];
        let mut traffic = KeyTraffic { buckets, ..KeyTraffic::default() };
        for ((kind, times), statuses) in KINDS.iter().zip(&self.times).zip(&self.requests) {
            // Requests that the page makes by itself do not count as traffic.
            if !KEY_KINDS.contains(kind) {
                continue;
            }
            for (sum, count) in traffic.buckets.iter_mut().zip(times.times().buckets) {
                *sum += count;
            }
            let failed = statuses.iter().skip(FIRST_FAILURE - 100);
            traffic.failed += failed.map(|count| count.load(Ordering::Relaxed)).sum::<u64>();
        }
        let slowest_us = self.slowest_write_us.swap(0, Ordering::Relaxed);
        let has_written = self.writes.swap(0, Ordering::Relaxed) > 0;
        traffic.slowest_write_us = has_written.then_some(slowest_us);
        traffic
    }

    /// Counts an accepted connection.
    pub(crate) fn accepted(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that has ended.
    pub(crate) fn ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of requests in progress.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Returns the number of open connections.
    pub(crate) fn open(&self) -> u64 {
        let ended = self.ended.load(Ordering::Relaxed);
        self.accepted.load(Ordering::Relaxed).saturating_sub(ended)
    }

    /// Counts received bytes.
    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts sent bytes.
    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Writes all metrics to a text.
    pub(crate) fn expose(&self, text: &mut Exposition) {
        if let Some(figures) = audit::figures() {
            expose_audit(&figures, text);
        }
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut family =
            text.counter("dkv_http_requests_total", "Answered requests, by kind and status.");
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
        text.gauge("dkv_http_requests_under_way", "Requests in progress.")
            .put(&[], load(&self.under_way));
        text.counter("dkv_http_connections_total", "Accepted connections.")
            .put(&[], load(&self.accepted));
        text.gauge("dkv_http_connections", "Open connections.").put(&[], self.open());
        text.counter("dkv_http_received_bytes_total", "Bytes received over connections.")
            .put(&[], load(&self.received_bytes));
        text.counter("dkv_http_sent_bytes_total", "Bytes sent over connections.")
            .put(&[], load(&self.sent_bytes));
    }

    /// Returns the document of `/v1/traffic`: for each kind of request, count, total time, and a
    /// histogram of times.
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

/// A request in progress, until this is dropped.
struct UnderWay<'a>(&'a Metrics);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request, as middleware.
pub(crate) async fn count(
    State(metrics): State<Arc<Metrics>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let kind = kind(request.method(), request.uri().path());
    let is_write = KEY_KINDS.contains(&KINDS[kind])
        && matches!(*request.method(), Method::PUT | Method::DELETE | Method::POST);
    let begun = Instant::now();
    metrics.under_way.fetch_add(1, Ordering::Relaxed);
    let under_way = UnderWay(&metrics);
    let response = next.run(request).await;
    drop(under_way);
    metrics.count_kind(kind, response.status(), begun);
    if is_write {
        metrics.count_write(begun);
    }
    response
}

/// Returns the answer to `/metrics`.
pub(crate) fn answer(text: Exposition) -> Response<Body> {
    let mut response = Response::new(Body::from(text.finish()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Writes what became of the events of the process's audit log.
fn expose_audit(figures: &AuditFigures, text: &mut Exposition) {
    let AuditFigures { written, lost, suppressed } = *figures;
    for (name, help, value) in [
        ("dkv_audit_lines_total", "Lines written to the audit log.", written),
        ("dkv_audit_lost_total", "Events that the audit log had no room for.", lost),
        (
            "dkv_audit_suppressed_total",
            "Denials above the rate of their senders, which are only counted.",
            suppressed,
        ),
    ] {
        text.counter(name, help).put(&[], value);
    }
}

#[cfg(test)]
mod tests;
