//! Bounds of the state that no process but this one needs to know. Those that clients can meet are
//! in [`dkv_wire::limits`].

use dkv_wire::limits;

/// Time without a write after which a session makes room for a new one, in milliseconds of the log.
pub const SESSION_IDLE_MS: u64 = 60_000;
/// Time without a write after which a session makes room for another one of its own holder, in
/// milliseconds of the log: as long as a request is waited for.
pub const SESSION_OWN_IDLE_MS: u64 = limits::REQUEST_TIMEOUT.as_millis() as u64;
/// Time without a write after which a session expires, in milliseconds of the log.
pub const SESSION_LIFE_MS: u64 = 3_600_000;
/// Results that one shard remembers over all its sessions: 64 bytes each, more or less.
pub const SESSION_RESULTS_MAX: usize = 1024 * 1024;
/// What a client is told to wait when the session table is full, in milliseconds.
pub const SESSION_RETRY_MS: u32 = 1000;
/// What a client is told to wait when its own window is full, in milliseconds.
pub const WINDOW_RETRY_MS: u32 = 10;

/// Time for which it is known when a key was deleted, in milliseconds of the log.
pub const TOMBSTONE_LIFE_MS: u64 = 3_600_000;
/// Bytes of all tombstones of a shard; the oldest go first.
pub const TOMBSTONES_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes that a tombstone takes besides its key, about.
pub const TOMBSTONE_OVERHEAD_BYTES: usize = 96;
/// Nodes whose outboxes a shard has ever taken from.
pub const OUTBOXES_MAX: usize = 16 * 1024;

/// Bytes that one chunk of a snapshot aims for. One row may be larger.
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
