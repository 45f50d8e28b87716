//! Every bound of the gateway, in one place.

use std::time::Duration;

/// Connections at the same time; more wait in the listener's queue.
pub(crate) const CONNECTIONS_MAX: usize = 4096;
/// Files that the process may have open, if its limit can be raised so far: one for each
/// connection, and those of whatever else it is.
pub(crate) const FILES_MAX: u64 = 65_536;
/// Requests at the same time on one HTTP/2 connection.
pub(crate) const STREAMS_MAX: u32 = 256;
/// Longest head of a request: request line and header fields.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of an HTTP/1 request.
pub(crate) const HEADERS_MAX: usize = 100;
/// Time in which the head of an HTTP/1 request must be complete; then the connection is closed.
/// After an answer it is kept for as long without another request.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time that a TLS handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bearer tokens that were good and are remembered.
pub(crate) const TOKENS_KNOWN_MAX: usize = 1024;
/// Time after which a connection is closed on which nothing is asked, and no piece of a body is
/// taken.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// Silence after which an HTTP/2 peer is pinged, and time that it has to answer.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
/// See [`PING_EVERY`].
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a body must be complete; whoever needs longer is told.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Time that requests under way have when the gateway stops.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest body of a value. The network's own limit is lower as a rule, and is what it answers.
pub(crate) const VALUE_BYTES_MAX: usize = dkv_wire::limits::VALUE_BYTES_MAX;
/// Bytes of bodies, of requests and of answers, that are in memory at the same time.
pub(crate) const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Those of one bearer of a token.
pub(crate) const BEARER_BODIES_BYTES_MAX: usize = BODIES_BYTES_MAX / 2;
/// Those of all bearers together who may only read.
pub(crate) const READERS_BODIES_BYTES_MAX: usize = BODIES_BYTES_MAX / 4 * 3;
/// An answer is handed to its connection in pieces of so many bytes, each when there is room for
/// it.
pub(crate) const ANSWER_PIECE_BYTES: usize = 64 * 1024;
/// Bytes that are read and thrown away of a body that is too long, so that its sender gets to read
/// the answer.
pub(crate) const DRAIN_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time that this may take.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest query of a request's target.
pub(crate) const QUERY_BYTES_MAX: usize = 6 * dkv_wire::limits::KEY_BYTES_MAX + 1024;
/// What `Retry-After` says, in seconds.
pub(crate) const RETRY_AFTER_S: u32 = 1;
/// Time in which a network must answer to be called ready.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(1);

/// Keys on a page of `/v1/kv` unless something else is asked for.
pub(crate) const LIST_LIMIT_DEFAULT: usize = 100;
/// Most keys on a page.
pub(crate) const LIST_LIMIT_MAX: usize = 1000;
/// A page ends when it has so many bytes of keys and values.
pub(crate) const PAGE_BYTES: usize = 1024 * 1024;
/// Pages that are made at the same time; others wait. The scan behind each may hold 16 MiB.
pub(crate) const LISTS_AT_ONCE: usize = 16;
/// Time that they wait.
pub(crate) const LIST_TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest body of a batch.
pub(crate) const BATCH_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Operations of a batch.
pub(crate) const BATCH_OPERATIONS_MAX: usize = 1000;
/// Keys of a batch that are worked on at the same time.
pub(crate) const BATCH_AT_ONCE: usize = 32;
/// Values in the answer to a batch, in bytes.
pub(crate) const BATCH_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Longest key of `/kvs`.
pub(crate) const KVS_KEY_BYTES_MAX: usize = 250;
/// Longest value of `/kvs`. Its document says 1.5 MB; this is what that may mean at most.
pub(crate) const KVS_VALUE_BYTES_MAX: usize = 1536 * 1024;
/// Longest form of `/kvs`: each byte of a value may take three, and there may be other fields.
pub(crate) const KVS_FORM_BYTES_MAX: usize = 3 * KVS_VALUE_BYTES_MAX + 4096;
/// Longest answer that is forwarded: each byte of a value may take six in JSON.
pub(crate) const FORWARD_ANSWER_BYTES_MAX: usize = 6 * KVS_VALUE_BYTES_MAX + 4096;
/// Time that the main instance has to take a connection.
pub(crate) const FORWARD_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Time that the main instance has to answer; longer than a request may take there.
pub(crate) const FORWARD_TIMEOUT: Duration = Duration::from_secs(12);
/// Time that a connection to the main instance is kept; less than it keeps one itself.
pub(crate) const FORWARD_IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Longest body of `/set`, `/fetch` and `/query`.
pub(crate) const PAIRS_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Keys of one such request.
pub(crate) const PAIRS_KEYS_MAX: usize = 10_000;
/// Keys and values in the answer to `POST /fetch`, in bytes.
pub(crate) const PAIRS_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Keys of one such request that are read or written at the same time.
pub(crate) const PAIRS_AT_ONCE: usize = 32;
/// Room that each `GET /fetch` takes of that for bodies: the pages that a scan holds.
pub(crate) const FETCH_ALL_BYTES: usize = 24 * 1024 * 1024;

/// Time between two looks at the network while somebody has the page open.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Only each so many of them is made while nobody has.
pub(crate) const LOOKS_UNWATCHED: u64 = 5;
/// Time that the page waits for a look; one that takes longer is told when it is done.
pub(crate) const LOOK_TIMEOUT: Duration = Duration::from_millis(900);
/// Moments that are kept for the page; all of them, while it is open, are a quarter of an hour.
pub(crate) const SAMPLES_MAX: usize = 900;
/// Events that are kept for it.
pub(crate) const EVENTS_MAX: usize = 200;
/// Nodes whose past is kept for it, and spans of time of each.
pub(crate) const LANES_MAX: usize = 128;
/// See [`LANES_MAX`].
pub(crate) const SPANS_MAX: usize = 128;
/// Tabs that are told at the same time.
pub(crate) const TABS_MAX: usize = 64;
/// Moments that a tab may be behind before it is told everything anew.
pub(crate) const TAB_LAG_MAX: usize = 8;

const _: () = {
    assert!(VALUE_BYTES_MAX * 8 <= BODIES_BYTES_MAX);
    assert!(3 * dkv_wire::limits::KEY_BYTES_MAX + QUERY_BYTES_MAX < HEAD_BYTES_MAX);
    assert!(KVS_VALUE_BYTES_MAX <= dkv_wire::limits::VALUE_BYTES_DEFAULT);
    // Or the connection would end before anybody is told why.
    assert!(HEAD_TIMEOUT.as_secs() < IDLE_TIMEOUT.as_secs());
    assert!(BODY_TIMEOUT.as_secs() < IDLE_TIMEOUT.as_secs());
    assert!(CONNECTIONS_MAX as u64 * 2 < FILES_MAX);
    assert!(FORWARD_IDLE_TIMEOUT.as_secs() < HEAD_TIMEOUT.as_secs());
    assert!(PAGE_BYTES + VALUE_BYTES_MAX < BODIES_BYTES_MAX);
    assert!(BATCH_BODY_BYTES_MAX + BATCH_ANSWER_BYTES_MAX < BEARER_BODIES_BYTES_MAX);
    assert!(BODIES_BYTES_MAX <= u32::MAX as usize);
};
