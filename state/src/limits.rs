//! Bounds of the state that are internal to this process. The bounds that clients can run into are
//! in [`dkv_wire::limits`].

use dkv_wire::limits;

/// Time without a write after which a session may be evicted for a new one, in milliseconds of the
/// log's clock.
pub const SESSION_IDLE_MS: u64 = 60_000;
/// Time without a write after which a session may be evicted for another session of the same
/// holder, in milliseconds of the log's clock: as long as a client waits for a request.
pub const SESSION_OWN_IDLE_MS: u64 = limits::REQUEST_TIMEOUT.as_millis() as u64;
/// Time without a write after which a session expires, in milliseconds of the log's clock.
pub const SESSION_LIFE_MS: u64 = 3_600_000;
/// Time for which an ended session is remembered, in milliseconds of the log's clock.
pub const ENDED_SESSION_LIFE_MS: u64 = 24 * SESSION_LIFE_MS;
/// Ended sessions that a shard remembers, at roughly 128 bytes each; beyond this, the oldest are
/// forgotten first.
pub const ENDED_SESSIONS_MAX: usize = 4 * limits::SESSIONS_MAX;
/// Results that one shard remembers over all its sessions, at roughly 64 bytes each.
pub const SESSION_RESULTS_MAX: usize = 1024 * 1024;
/// Time a client should wait before it retries when the session table is full, in milliseconds.
pub const SESSION_RETRY_MS: u32 = 1000;
/// Time a client should wait before it retries when its own window is full, in milliseconds.
pub const WINDOW_RETRY_MS: u32 = 10;

/// Lifetime of a tombstone, in milliseconds of the log's clock.
pub const TOMBSTONE_LIFE_MS: u64 = 3_600_000;
/// Bytes of all tombstones of a shard; beyond this, the oldest are dropped first.
pub const TOMBSTONES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Approximate size of a tombstone in addition to its key, in bytes.
pub const TOMBSTONE_OVERHEAD_BYTES: usize = 96;
/// Maximum number of nodes from whose outboxes a shard ever takes writes.
pub const OUTBOXES_MAX: usize = 16 * 1024;

/// Parts of transactions over several shards that a shard has prepared at once.
pub const PARTS_MAX: usize = 4096;
/// Bytes of all of them together; a single one may be larger.
pub const PARTS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Approximate size of a part in addition to its body, in bytes.
pub const PART_OVERHEAD_BYTES: usize = 256;
/// Transactions that a home remembers beside their outcomes: undecided ones, and committed ones
/// whose client may ask again.
pub const RECORDS_MAX: usize = 64 * 1024;
/// The same for the sessions of one holder, once half of all are taken.
pub const HOLDER_RECORDS_MAX: usize = RECORDS_MAX / 4;
/// Records beyond these of attempts that a home has never seen and declares aborted, so that no
/// lock stays in another shard for lack of room here.
pub const RECORDS_RESERVED: usize = RECORDS_MAX;
/// Executed attempts of one home that a shard remembers until their home says that they are over.
pub const EXECUTED_MAX: usize = 4096;
/// Time a node should wait before it retries when there is no room for a part, in milliseconds.
pub const PARTS_RETRY_MS: u32 = 50;

/// Target size of a snapshot chunk, in bytes. A single row may be larger.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// Longest chunk that an installer accepts, in bytes: one full chunk and the longest row.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = limits::FRAME_BYTES_MAX;
/// Longest encoded position that a checkpoint stores, in bytes.
pub const APPLIED_BYTES_MAX: usize = 1024 * 1024;

const _: () = {
    assert!(SESSION_IDLE_MS < SESSION_LIFE_MS);
    assert!(SESSION_OWN_IDLE_MS < SESSION_IDLE_MS);
    assert!(limits::SESSION_WINDOW_MAX <= SESSION_RESULTS_MAX);
    assert!(limits::SESSIONS_MAX <= SESSION_RESULTS_MAX);
    assert!(
        SNAPSHOT_CHUNK_BYTES + limits::KEY_BYTES_MAX + limits::VALUE_BYTES_MAX + 64
            < SNAPSHOT_CHUNK_BYTES_MAX
    );
};
