//! The bounds of the server itself; those of the protocol are in [`dkv_wire::limits`].

use std::time::Duration;

use dkv_wire::limits;

/// Longest request of a client or administrator, in bytes. Only a node's report may be longer.
pub(crate) const REQUEST_BYTES_MAX: usize = limits::JOIN_FRAME_BYTES_MAX;
/// Open streams per certified peer; each may hold one frame in memory.
pub(crate) const STREAMS_MAX: u32 = 16;
/// Open connections per certificate holder.
pub(crate) const HOLDER_CONNECTIONS_MAX: usize = 64;
/// Joiners connected at the same time; further ones are turned away. Most connections stay free
/// for holders of a certificate.
pub(crate) const JOINERS_MAX: usize = 256;
/// Joiners from one address; a new one evicts the oldest.
pub(crate) const ADDRESS_JOINERS_MAX: usize = JOINERS_MAX / 4;
/// Places that joiners with the token of a client or reader leave to others, in all and at their
/// address, while they may not lose theirs.
pub(crate) const JOINERS_KEPT: usize = 16;
/// Time that a joiner has to take its answer before it may lose its place.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// The same for one that is far away, or says so by answering late.
pub(crate) const FAR_ANSWER_TIMEOUT: Duration = Duration::from_millis(1500);
/// Senders of refused requests, and addresses of refused joiners, that the log tells apart at a
/// time.
pub(crate) const LOGGED_SENDERS_MAX: usize = 32;
/// Joiners whose certificates are verified or signed at the same time.
pub(crate) const SIGNING_MAX: usize = 8;
/// Time from a joiner's first packet to its last.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a joiner waits for its signature before the server refuses it as busy.
pub(crate) const SIGNING_TIMEOUT: Duration = Duration::from_secs(3);

/// Updates in the queue of the registry store.
pub(crate) const WAITING_MAX: usize = 1024;
/// Updates that share one write.
pub(crate) const GROUP_MAX: usize = 256;

/// Time that the control group has to decide on a change of the books. The server tells a joiner
/// whose change was not decided by then before the joiner's own time is up.
pub(crate) const BOOKS_PATIENCE: Duration = Duration::from_secs(2);
/// The same for finding out whether a change was made whose answer was lost.
pub(crate) const BOOKS_LOST_PATIENCE: Duration = Duration::from_secs(1);
/// The same for following the books, which takes the way to the coordinator and its way to a
/// quorum.
pub(crate) const BOOKS_FOLLOW_PATIENCE: Duration = Duration::from_millis(800);
/// Time that one node has to answer.
pub(crate) const BOOKS_ATTEMPT: Duration = Duration::from_secs(1);
/// Time that the server waits for a connection to one node before it tries the next one.
pub(crate) const BOOKS_DIAL: Duration = Duration::from_millis(100);
/// Time between two attempts to find the coordinator.
pub(crate) const BOOKS_RETRY: Duration = Duration::from_millis(50);
/// Interval at which the server checks whether the books have changed.
pub(crate) const BOOKS_CHECK: Duration = Duration::from_millis(100);
/// The same after a check that failed.
pub(crate) const BOOKS_AGAIN: Duration = Duration::from_secs(1);
/// Least age of the books before a joiner with an unknown token has them fetched.
pub(crate) const BOOKS_REFRESH_MIN: Duration = Duration::from_millis(200);
/// How often a change is decided, or the books are read, again because another server was faster.
pub(crate) const BOOKS_CONFLICTS_MAX: u32 = 32;

/// Life of a token for a server if none is given, in seconds, and its longest life.
pub(crate) const SERVER_TOKEN_LIFE_S: u64 = 3600;
pub(crate) const SERVER_TOKEN_LIFE_S_MAX: u64 = 24 * 3600;

/// Records of the inventory of holders that are kept for administrators and servers, and for the
/// bearer tokens that administrators make.
pub(crate) const HOLDERS_KEPT: usize = 256;
/// Live holders that one token has admitted from which on no other live holder makes room for more.
pub(crate) const TOKEN_HOLDERS_MAX: usize = limits::HOLDERS_MAX / 4;
/// Join tokens in the registry.
pub(crate) const TOKENS_MAX: usize = 1024;
/// Tokens that admit nobody any more, of which so many make room at once: with all else that
/// [`GROUP_MAX`] updates change (a joining: the token, the holder, and one that makes room), they
/// fit into one change of the books.
pub(crate) const TOKENS_DROPPED_MAX: usize = 128;
/// Admitted holders listed with a token, the newest ones.
pub(crate) const ADMITTED_MAX: usize = 16;

/// Reachability probes in flight.
pub(crate) const PROBES_MAX: usize = 8;
/// Time before a node is probed again. A node chooses the address to which the server sends
/// packets, so this bounds what it can make the server send.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Nodes whose latest probe is remembered.
pub(crate) const PROBED_NODES_MAX: usize = limits::NODES_MAX;

/// Silence of the coordinator after which it is shown as suspect, in milliseconds.
pub(crate) const SUSPECT_AFTER_MS: u64 = 3_000;
/// Silence of the coordinator after which it is shown as down, in milliseconds.
pub(crate) const DOWN_AFTER_MS: u64 = 15_000;

/// Time for which a node's claim about the control group counts, in milliseconds. Nodes repeat
/// theirs every ten seconds.
pub(crate) const CLAIM_VALID_MS: u64 = 30_000;
/// Silence of the voters after which the server accepts the claims of the survivors, in
/// milliseconds.
pub(crate) const VOTERS_SILENT_MS: u64 = 60_000;
/// Time between two writes of the registry for new log marks alone, in milliseconds.
pub(crate) const MARK_FLUSH_MS: u64 = 2_000;
/// Time within which a live run of a node is heard again, in milliseconds: it asks every 3 seconds.
pub(crate) const RUN_SILENT_MS: u64 = 4_000;
/// Time for which a run counts as alive after it was heard, in milliseconds.
pub(crate) const RUN_HEARD_MS: u64 = 15_000;
/// Time for which the status shows that a node was started on an older copy, in milliseconds.
pub(crate) const OLDER_COPY_SHOWN_MS: u64 = 600_000;
/// Runs remembered per node, the newest ones.
pub(crate) const RUNS_MAX: usize = 8;

const _: () = {
    assert!(JOINERS_MAX * 4 <= limits::CONNECTIONS_MAX);
    assert!(SUSPECT_AFTER_MS < DOWN_AFTER_MS);
    assert!(CLAIM_VALID_MS < VOTERS_SILENT_MS);
    assert!(RUN_SILENT_MS < RUN_HEARD_MS);
    assert!(SIGNING_TIMEOUT.as_millis() < JOIN_TIMEOUT.as_millis());
    assert!(3 * GROUP_MAX + TOKENS_DROPPED_MAX <= limits::BOOKS_CHANGE_RECORDS_MAX);
    assert!(
        BOOKS_FOLLOW_PATIENCE.as_millis()
            + BOOKS_PATIENCE.as_millis()
            + BOOKS_LOST_PATIENCE.as_millis()
            < JOIN_TIMEOUT.as_millis()
    );
};
