//! All bounds of the face.

use std::time::Duration;

/// Longest request, in bytes: etcd's default, beyond which a request "is too large".
pub(crate) const REQUEST_BYTES_MAX: usize = 1536 * 1024;
/// Longest encoding of a request on the wire, in bytes. etcd leaves 512 KiB for the encoding, so
/// that a request a little over the limit gets an answer of etcd and not of gRPC.
pub(crate) const MESSAGE_BYTES_MAX: usize = REQUEST_BYTES_MAX + 512 * 1024;
/// Longest body of a request in JSON, in bytes: base64 makes it a third longer, names add some.
pub(crate) const JSON_BYTES_MAX: usize = 2 * MESSAGE_BYTES_MAX;
/// Longest answer to a range in one message, in bytes: about what a client can hold.
pub(crate) const ANSWER_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of answers that are made or sent, of all connections; further ones are refused.
pub(crate) const ANSWERS_BYTES_MAX: usize = 2 * ANSWER_BYTES_MAX;
/// Memory of keys that an order holds beyond those that its limit asks for, in bytes.
pub(crate) const SORT_SLACK_BYTES: usize = 16 * 1024 * 1024;
/// Memory that a key of an answer takes beside its bytes.
pub(crate) const KEY_OVERHEAD_BYTES: usize = 128;
/// Most operations of each list of a transaction; a transaction within it counts against what its
/// parent has left.
pub(crate) const TXN_OPS_MAX: usize = 128;
/// Most keys of a lease of which a user is checked to have the permission for each.
pub(crate) const LEASE_KEYS_CHECKED_MAX: usize = 65_536;
/// Most compares and operations of a transaction and those within it: as many as the network takes.
pub(crate) const TXN_PARTS_MAX: usize = 2048;
/// Most transactions within a transaction: as many as the network takes.
pub(crate) const TXN_NESTED_MAX: usize = 64;
/// Bytes of a snapshot in one message. etcd sends 32 KiB.
pub(crate) const SNAPSHOT_BLOB_BYTES: usize = 256 * 1024;
/// Messages of a snapshot that wait for its reader.
pub(crate) const SNAPSHOT_ANSWERS_WAITING: usize = 4;
/// Snapshots that are sent at the same time. Each takes a temporary file as large as the keyspace.
pub(crate) const SNAPSHOTS_AT_ONCE: usize = 4;
/// Watches of the face, those of locks and elections included; further ones are refused. A caller
/// has [shares](crate::budget) of them. A node serves twice as many of one holder, and one more for
/// each face, so two faces may share their credentials.
pub(crate) const WATCHES_MAX: usize = 8192;
/// Watches of one stream.
pub(crate) const STREAM_WATCHES_MAX: usize = WATCHES_MAX / 2;
/// Bytes of the changes that a watch shows at once; those of one revision may be more. A watch that
/// catches up by itself has as much memory for what its reader has not taken.
pub(crate) const WATCH_ROOM_BYTES: usize = 256 * 1024;
/// Changes that wait for a watch which shares that of the face. One that has more, as its caller
/// does not read, catches up by itself.
pub(crate) const WATCH_QUEUE_MAX: usize = 2048;
/// Recent changes that are checked for a watch that begins to share them. One with more to catch
/// up does that by itself, so that none holds up the others.
pub(crate) const WATCH_JOIN_LOOKS: usize = 4096;
/// Revisions by which the first watch that shares may be behind. What it has to read, those that
/// join it wait for.
pub(crate) const HUB_LAG_MAX: u64 = 1024;
/// Time to wait for the latest revision before a watch shares.
pub(crate) const HUB_LATEST_TIMEOUT: Duration = Duration::from_millis(500);
/// Recent changes that the watches of the face share, in bytes. All changes that wait for one of
/// them are among these, but for those that are being sent.
pub(crate) const WATCH_RING_BYTES: usize = 16 * 1024 * 1024;
/// Longest key of the network, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 4096;
/// Answers of a stream of watches that wait for its reader. Beyond, its watches stop reading.
pub(crate) const WATCH_ANSWERS_WAITING: usize = 4;
/// Time without events after which a watch reports progress, if it is asked to and no option says
/// otherwise.
pub(crate) const WATCH_PROGRESS_EVERY: Duration = Duration::from_secs(600);
/// Shortest such time.
pub(crate) const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);
/// Age to which the history of the keyspace reaches, if the face creates it. Clients of etcd expect
/// that it goes back to the last compaction.
pub(crate) const HISTORY_AGE: Duration = Duration::from_secs(24 * 3600);
/// Size to which that history grows, in bytes. Each replica has it in memory.
pub(crate) const HISTORY_BYTES: u64 = 256 * 1024 * 1024;
/// Time between two looks for a leader, for streams that need one.
pub(crate) const LEADER_CHECK_EVERY: Duration = Duration::from_secs(3);
/// Time between two looks whether the caller may still have its streams.
pub(crate) const RIGHTS_CHECK_EVERY: Duration = Duration::from_secs(1);
/// Age of what the face knows of rights beyond which such a look has it read again.
pub(crate) const RIGHTS_FRESH: Duration = Duration::from_secs(2);
/// Age beyond which a stream ends, as its right may have been withdrawn.
pub(crate) const RIGHTS_UNKNOWN_MAX: Duration = Duration::from_secs(60);
/// Time in which a leader must answer a caller that needs one.
pub(crate) const LEADER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for which a leader that has answered need not be asked again.
pub(crate) const LEADER_KNOWN_FOR: Duration = Duration::from_secs(1);
/// Time to live of the lease of a lock or a candidate that names none.
pub(crate) const SESSION_TTL: Duration = Duration::from_secs(60);
/// Messages of one stream of keep-alives that are answered at the same time.
pub(crate) const KEEP_ALIVES_AT_ONCE: usize = 64;

/// Open connections; further ones wait in the listener's queue.
pub(crate) const CONNECTIONS_MAX: usize = 16_384;
/// Requests in progress on one connection, streams included; further ones are refused. etcd's
/// clients do without a limit of streams, so the protocol announces none.
pub(crate) const CONNECTION_REQUESTS_MAX: usize = 65_536;
/// Bytes of requests in progress, of all connections; further ones are refused.
pub(crate) const REQUESTS_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Bytes of messages, and of answers, that each connection has beside those of all: enough to log
/// in, and for small requests.
pub(crate) const CONNECTION_RESERVE_BYTES: usize = 8 * 1024;
/// Bytes of an answer that is not counted until it has been sent, and may be read at any rate.
pub(crate) const ANSWER_SMALL_BYTES: usize = 512;
/// Bytes of an answer handed to the connection at a time.
pub(crate) const ANSWER_PIECE_BYTES: usize = 256 * 1024;
/// Least rate at which an answer has to be read, or a frame of one that is a stream, in bytes a
/// second.
pub(crate) const ANSWER_RATE_BYTES: usize = 64 * 1024;
/// Time by which a reader may be behind that rate. Then its connection ends.
pub(crate) const ANSWER_RATE_GRACE: Duration = Duration::from_secs(60);
/// Time between two looks at the rate.
pub(crate) const ANSWER_RATE_CHECK: Duration = Duration::from_secs(5);
/// Bytes for which a change that may show keys has to find room before it is executed; so one whose
/// answer cannot be sent is seldom done.
pub(crate) const ANSWER_LEAST_BYTES: usize = 1024;
/// Resets of streams by the peer that may wait to be handled before the connection ends; h2's
/// default of 20 is fewer than a client that cancels a few watches at once needs.
pub(crate) const PENDING_RESETS_MAX: usize = 4096;
/// Window of a stream of HTTP/2, in bytes.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// Window of a connection of HTTP/2, in bytes.
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes of an answer handed to a stream at a time.
pub(crate) const SEND_BUFFER_BYTES: usize = 1024 * 1024;
/// Longest head of a request, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Time in which the head of an HTTP/1 request must arrive.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Time in which a message must arrive, once its request or its first byte has.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Silence after which an HTTP/2 peer is pinged.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
/// Time in which a pinged HTTP/2 peer must answer.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Time that requests in progress have to finish when the face stops.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Time in which the network must answer to count as healthy.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(3);

/// Least rate at which a snapshot has to be read, in bytes a second.
pub(crate) const SNAPSHOT_RATE_BYTES: u32 = 256 * 1024;
/// Time by which the caller of a snapshot may be behind that rate; others may wait for its place.
pub(crate) const SNAPSHOT_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Age of what a face knows of what all faces share, beyond which it looks again before it answers.
pub(crate) const SHARED_FRESH: Duration = Duration::from_secs(1);
/// Time to wait for that. Beyond, what was known before counts, if it may.
pub(crate) const SHARED_LOAD_TIMEOUT: Duration = Duration::from_millis(500);
/// Age of what a face knows of it while authentication is on, beyond which it refuses requests.
pub(crate) const SHARED_GRACE: Duration = Duration::from_secs(5);
/// Time to wait for that where nothing is known.
pub(crate) const SHARED_FIRST_TIMEOUT: Duration = Duration::from_secs(5);
/// Age of what a face knows of it beyond which it looks again before it refuses a request.
pub(crate) const SHARED_DENIED_FRESH: Duration = Duration::from_millis(20);
/// Size of what the faces share in bytes.
pub(crate) const SHARED_BYTES_MAX: usize = 1024 * 1024;
/// Size up to which it may grow by what must be possible then: keys of faces that have restarted.
pub(crate) const SHARED_BYTES_RESERVED: usize = SHARED_BYTES_MAX + 64 * 1024;
/// Passwords that are hashed at the same time.
pub(crate) const HASHES_AT_ONCE: usize = 2;
/// Passwords that run or wait for that, of those that are checked and of those that are changed;
/// further ones are refused.
pub(crate) const HASHES_WAITING_MAX: usize = 64;

const _: () = {
    // The other face of the process has as many files again.
    assert!(CONNECTIONS_MAX as u64 * 2 < dkv_listener::FILES_MAX);
    assert!(STREAM_WATCHES_MAX < WATCHES_MAX);
    // A connection that is alone may have a third of all messages, and three fifths of the rest.
    assert!(JSON_BYTES_MAX * 3 < REQUESTS_BYTES_MAX);
    assert!(ANSWER_BYTES_MAX * 5 <= ANSWERS_BYTES_MAX * 3);
    assert!(STREAM_WATCHES_MAX * 5 <= WATCHES_MAX * 3);
    assert!(CONNECTION_RESERVE_BYTES * CONNECTIONS_MAX < REQUESTS_BYTES_MAX);
};
