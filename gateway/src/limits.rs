//! All bounds of the gateway.

use std::time::Duration;

/// Open connections; further ones wait in the listener's queue.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Concurrent requests on one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 256;
/// Longest head of a request (request line and header fields), in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Most header fields of an HTTP/1 request.
pub(crate) const HEADERS_MAX: usize = 100;
/// Time in which the head of an HTTP/1 request must arrive, or the connection is closed. A
/// connection without another request is closed after the same time.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Valid bearer tokens in the cache.
pub(crate) const TOKENS_KNOWN_MAX: usize = 1024;
/// Time after which a connection is closed if no request begins and no part of a body moves.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Silence after which an HTTP/2 peer is pinged.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
/// Time in which a pinged HTTP/2 peer must answer.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which the body of a request must arrive, or the answer is 408.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that requests in progress have to finish when the gateway stops.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest value, in bytes. The network's own limit is usually lower, and applies too.
pub(crate) const VALUE_BYTES_MAX: usize = dkv_wire::limits::VALUE_BYTES_MAX;
/// Bytes of request and response bodies in memory.
pub(crate) const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Share of [`BODIES_BYTES_MAX`] that one bearer of a token may use.
pub(crate) const BEARER_BODIES_BYTES_MAX: usize = BODIES_BYTES_MAX / 2;
/// Share of [`BODIES_BYTES_MAX`] that all read-only bearers together may use.
pub(crate) const READERS_BODIES_BYTES_MAX: usize = BODIES_BYTES_MAX / 4 * 3;
/// Bytes of a response body handed to the connection at a time.
pub(crate) const ANSWER_PIECE_BYTES: usize = 64 * 1024;
/// Bytes of an oversized body that are read and discarded, so that its sender gets to read the
/// answer.
pub(crate) const DRAIN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time for which an oversized body is read and discarded.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest query string, in bytes.
pub(crate) const QUERY_BYTES_MAX: usize = 6 * dkv_wire::limits::KEY_BYTES_MAX + 1024;
/// Value of `Retry-After`, in seconds.
pub(crate) const RETRY_AFTER_S: u32 = 1;
/// Time in which the network must answer to count as ready.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Default number of keys on a page of `/v1/kv`.
pub(crate) const LIST_LIMIT_DEFAULT: usize = 100;
/// Most keys on a page.
pub(crate) const LIST_LIMIT_MAX: usize = 1000;
/// Bytes of keys and values after which a page ends.
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;
/// List pages in progress; further ones wait. The scan behind each may hold 16 MiB.
pub(crate) const LISTS_AT_ONCE: usize = 16;
/// Time that a list page waits for its turn.
pub(crate) const LIST_TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Versions of a key that are asked for at once.
pub(crate) const HISTORY_STEP_VERSIONS: usize = 16;
/// Watches in progress; further ones are refused.
pub(crate) const WATCHES_MAX: usize = 1024;
/// Share of [`WATCHES_MAX`] that one bearer of a token may use.
pub(crate) const BEARER_WATCHES_MAX: usize = WATCHES_MAX / 4;
/// Time that a resumed watch has to fail, before the answer begins.
pub(crate) const WATCH_FIRST_TIMEOUT: Duration = Duration::from_secs(1);
/// Silence after which a watch sends a comment, so that proxies keep it open.
pub(crate) const WATCH_HEARTBEAT: Duration = Duration::from_secs(15);
/// Time that a change waits for room among the bodies in memory.
pub(crate) const WATCH_ROOM_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest body of a batch, in bytes.
pub(crate) const BATCH_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most operations of a batch.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 1000;
/// Keys of a batch processed concurrently.
pub(crate) const BATCH_AT_ONCE: usize = 32;
/// Longest body of a transaction, in bytes. The network takes less, but text may be escaped.
pub(crate) const TRANSACTION_BODY_BYTES_MAX: usize = BATCH_BODY_BYTES_MAX;
/// Longest answer to a batch, in bytes.
pub(crate) const BATCH_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest key of `/kvs`, in bytes.
pub(crate) const KVS_KEY_BYTES_MAX: usize = 250;
/// Longest value of `/kvs`, in bytes. Its specification says 1.5 MB; this is the largest reading.
pub(crate) const KVS_VALUE_BYTES_MAX: usize = 1536 * 1024;
/// Longest form of `/kvs`, in bytes: each byte of a value may take three, and there may be other
/// fields.
pub(crate) const KVS_FORM_BYTES_MAX: usize = 3 * KVS_VALUE_BYTES_MAX + 4096;
/// Longest forwarded answer, in bytes: each byte of a value may take six in JSON.
pub(crate) const FORWARD_ANSWER_BYTES_MAX: usize = 6 * KVS_VALUE_BYTES_MAX + 4096;
/// Time in which the main instance must accept a connection.
pub(crate) const FORWARD_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time in which the main instance must answer; longer than a request may take there.
pub(crate) const FORWARD_TIMEOUT: Duration = Duration::from_secs(12);
/// Time for which an idle connection to the main instance is kept; less than the main instance
/// keeps it.
pub(crate) const FORWARD_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest body of `/set`, `/fetch` and `/query`, in bytes.
pub(crate) const BULK_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most keys of one such request.
pub(crate) const BULK_KEYS_MAX: usize = 10_000;
/// Longest answer to such a request, in bytes.
pub(crate) const BULK_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys of one such request read or written concurrently.
pub(crate) const BULK_AT_ONCE: usize = 32;
/// Bytes that each `GET /fetch` takes from the budget for bodies: the pages that a scan holds.
pub(crate) const FETCH_ALL_BYTES: usize = 24 * 1024 * 1024;

/// Time between two samples of the network while a page is open.
pub(crate) const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// While no page is open, only one in this many samples is taken.
pub(crate) const UNWATCHED_INTERVAL: u64 = 5;
/// Time for which pages wait for a sample; a slower one is sent when it is done.
pub(crate) const SAMPLE_TIMEOUT: Duration = Duration::from_millis(900);
/// Samples kept for the page: a quarter of an hour while it is open.
pub(crate) const SAMPLES_MAX: usize = 900;
/// Events kept for the page.
pub(crate) const EVENTS_MAX: usize = 200;
/// Nodes whose timeline is kept for the page.
pub(crate) const TIMELINES_MAX: usize = 128;
/// Spans of time in each timeline.
pub(crate) const SPANS_MAX: usize = 128;
/// Open pages that receive news.
pub(crate) const SUBSCRIBERS_MAX: usize = 64;
/// Updates by which a page may lag before it gets the whole history again.
pub(crate) const SUBSCRIBER_LAG_MAX: usize = 8;

const _: () = {
    assert!(VALUE_BYTES_MAX * 8 <= BODIES_BYTES_MAX);
    assert!(3 * dkv_wire::limits::KEY_BYTES_MAX + QUERY_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(KVS_VALUE_BYTES_MAX <= dkv_wire::limits::VALUE_BYTES_DEFAULT);
    // Otherwise the connection would end before the client learns why.
    assert!(HEAD_TIMEOUT.as_secs() < IDLE_TIMEOUT.as_secs());
    assert!(BODY_TIMEOUT.as_secs() < IDLE_TIMEOUT.as_secs());
    // One file for each connection, and the rest of the process.
    assert!(CONNECTIONS_MAX as u64 * 2 < dkv_listener::FILES_MAX);
    assert!(FORWARD_IDLE_TIMEOUT.as_secs() < HEAD_TIMEOUT.as_secs());
    // Otherwise a silent watch would end.
    assert!(WATCH_HEARTBEAT.as_secs() * 2 < IDLE_TIMEOUT.as_secs());
    assert!(PAGE_BYTES + VALUE_BYTES_MAX < BODIES_BYTES_MAX);
    assert!(BATCH_BODY_BYTES_MAX + BATCH_ANSWER_BYTES_MAX < BEARER_BODIES_BYTES_MAX);
    assert!(BODIES_BYTES_MAX <= u32::MAX as usize);
    assert!(SAMPLE_TIMEOUT.as_millis() < SAMPLE_INTERVAL.as_millis());
};
