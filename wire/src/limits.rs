//! All bounds of the protocol, in one place.
//!
//! Everything that a peer, a client or a file can make longer has its limit here, with the unit
//! last in the name. Where an operator may change a limit, it is a default, and the maximum beside
//! it is what the code is built for.

use std::time::Duration;

use dkv_base::logging::level;

pub use dkv_base::hlc::CLOCK_SKEW;
pub use dkv_base::id::{FIRST_TERM_MAX, TERMS_AHEAD_MAX};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// Longest value by default, in bytes; the network's configuration may set another.
pub const VALUE_BYTES_DEFAULT: usize = 2 * MIB;
/// Longest value that a configuration may allow, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * MIB;
/// Longest frame on any stream, in bytes. The longest is a change with the value before it.
pub const FRAME_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX + MIB;
/// Longest frame that an unauthenticated peer may send, in bytes.
pub const JOIN_FRAME_BYTES_MAX: usize = 4 * KIB;
/// Longest frame of a request to the registration server, in bytes.
pub const SERVER_FRAME_BYTES_MAX: usize = 4 * MIB;
/// Longest first frame of a stream to a node, which names the purpose of the stream, in bytes.
pub const OPENING_BYTES_MAX: usize = 256;
/// Longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest name of a region, in bytes.
pub const REGION_BYTES_MAX: usize = 32;
/// Longest name of a user, in bytes. With the other labels of a certificate's name it stays below
/// the 253 bytes of a DNS name.
pub const USER_BYTES_MAX: usize = 32;
/// Policies of a network.
pub const POLICIES_MAX: usize = 1024;
/// Rules of one policy.
pub const POLICY_RULES_MAX: usize = 64;
/// Users that one policy is granted to.
pub const POLICY_USERS_MAX: usize = 4096;
/// Most requests a second to which a policy may limit its users.
pub const USER_REQUESTS_RATE_MAX: u32 = 10_000_000;
/// Fewest bytes a second to which a policy may limit its users: what keeps a client alive takes
/// some.
pub const USER_BYTES_RATE_MIN: u64 = 1024;
/// Most bytes a second to which a policy may limit its users.
pub const USER_BYTES_RATE_MAX: u64 = 1 << 40;
/// Most connections to which a policy may limit its users.
pub const USER_CONNECTIONS_MAX: u32 = 1_000_000;
/// Rules of one user, in all policies that are granted to it.
pub const USER_RULES_MAX: usize = 512;
/// Rules of all users together, those of users with the same policies counted once.
pub const USERS_RULES_MAX: usize = 65_536;
/// Size of all policies together, in bytes: of the names, the prefixes and the users, each with
/// [`POLICY_OVERHEAD_BYTES`]. The coordinator copies the directory with every change.
pub const POLICIES_BYTES_MAX: usize = MIB;
/// What each policy, rule and user of a policy counts for beside its text, in bytes.
pub const POLICY_OVERHEAD_BYTES: usize = 32;
/// Longest text of a join token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Commands in one batch, that is, in one Raft entry.
pub const BATCH_COMMANDS_MAX: usize = 4096;
/// A batch closes when it holds this many bytes; one command may be larger.
pub const BATCH_BYTES_TARGET: usize = MIB;
/// Keys in one page of a scan.
pub const SCAN_KEYS_MAX: usize = 1024;
/// Most compares, and most operations of each kind, of a transaction.
pub const TRANSACTION_OPERATIONS_MAX: usize = 128;
/// Most compares and operations of a transaction and all those within it.
pub const TRANSACTION_PARTS_MAX: usize = 2048;
/// Most transactions within a transaction.
pub const TRANSACTION_NESTED_MAX: usize = 64;
/// How deep transactions may be within each other.
pub const TRANSACTION_DEPTH_MAX: usize = 64;
/// What a version counts for beside its key and its value, in bytes: for its numbers, and for the
/// work.
pub const VERSION_OVERHEAD_BYTES: usize = 80;
/// Most bytes of keys and values that a transaction compares, that each list of its operations
/// reads, and that each list writes, with [`VERSION_OVERHEAD_BYTES`] for each key: its results fit
/// an answer, and its changes a frame of a watch.
pub const TRANSACTION_BYTES_MAX: usize = FRAME_BYTES_MAX - MIB;
/// Most shards of a transaction: its compares and operations may each be in another one.
pub const TRANSACTION_SHARDS_MAX: usize = 3 * TRANSACTION_OPERATIONS_MAX;
/// A page of a scan ends when it holds this many bytes; one pair may be larger.
pub const SCAN_BYTES_MAX: usize = MIB;
/// Memory that the histories of a keyspace's shards take on a node before their oldest versions
/// are forgotten, in bytes, unless the keyspace says otherwise.
pub const HISTORY_BYTES_MAX: u64 = 64 * MIB as u64;
/// Least share of a shard, in bytes.
pub const SHARD_HISTORY_BYTES_MIN: u64 = MIB as u64;
/// Most memory that a keyspace may give to its histories, in bytes.
pub const KEYSPACE_HISTORY_BYTES_MAX: u64 = 64 * 1024 * MIB as u64;
/// Age at which a version in the history of a shard is forgotten, unless its keyspace says
/// otherwise.
pub const HISTORY_AGE_MAX: Duration = Duration::from_secs(600);
/// Length of a log filter, in bytes.
pub const LOG_FILTER_BYTES_MAX: usize = level::FILTER_BYTES_MAX;
/// Longest time for which a log filter applies before the one before comes back.
pub const LOG_FILTER_LIFE_MAX: Duration = level::LIFE_MAX;
/// Leases in one shard.
pub const LEASES_MAX: usize = 100_000;
/// Leases in one shard that were granted to one holder.
pub const HOLDER_LEASES_MAX: usize = LEASES_MAX / 10;
/// Shortest time to live of a lease. It is longer than an election takes.
pub const LEASE_TTL_MIN: Duration = Duration::from_secs(1);
/// Shortest time to live of a key.
pub const KEY_TTL_MIN: Duration = Duration::from_millis(100);
/// Longest time to live of a lease or a key.
pub const TTL_MAX: Duration = Duration::from_secs(3650 * DAY_S);
/// Keys that one command deletes because their time is over.
pub const EXPIRE_KEYS_MAX: usize = 1024;
/// Least such age that a keyspace may have, in milliseconds.
pub const KEYSPACE_HISTORY_AGE_MS_MIN: u64 = 1000;
/// Greatest such age that a keyspace may have, in milliseconds: a year.
pub const KEYSPACE_HISTORY_AGE_MS_MAX: u64 = 365 * DAY_S * 1000;
/// Least quota of a keyspace, in bytes.
pub const QUOTA_BYTES_MIN: u64 = KIB as u64;
/// Greatest quota of a keyspace, in bytes: a pebibyte.
pub const QUOTA_BYTES_MAX: u64 = 1 << 50;
/// Requests of one connection that a node has in progress before it stops reading from it.
pub const CONNECTION_REQUESTS_MAX: usize = 4096;
/// Streams that one authenticated peer may have open at once. QUIC reserves memory for each in
/// advance.
pub const CONNECTION_STREAMS_MAX: u32 = 64;
/// Further streams that a node may have open to another, for each group of the latter.
pub const GROUP_STREAMS_MAX: u32 = 4;
/// Watches of one connection. Their streams do not count as those of requests.
pub const CONNECTION_WATCHES_MAX: usize = 4096;
/// Watches of one holder at one node: as many as two of etcd's faces have for their callers, and
/// some for the faces themselves.
pub const HOLDER_WATCHES_MAX: usize = 4 * CONNECTION_WATCHES_MAX + 64;
/// Longest first frame of a watch, in bytes.
pub const WATCH_REQUEST_BYTES_MAX: usize = 64 * KIB;
/// A frame of a watch ends when it holds this many bytes; one change may be larger.
pub const WATCH_BYTES_TARGET: usize = 64 * KIB;
/// Frames of one holder's watches that a node has in memory at once, in bytes.
pub const HOLDER_WATCH_BYTES_MAX: usize = 128 * MIB;
/// Values in the answers to one holder that a node has in memory at once, in bytes.
pub const HOLDER_RESULT_BYTES_MAX: usize = 128 * MIB;
/// Streams that an unauthenticated peer may have open at once.
pub const JOIN_STREAMS_MAX: u32 = 1;
/// Connections that one process accepts at once.
pub const CONNECTIONS_MAX: usize = 4096;
/// Further connections that one process accepts at once from nodes only.
pub const NODE_CONNECTIONS_RESERVED: usize = 512;
/// Further connections that one process accepts at once from administrators only.
pub const ADMIN_CONNECTIONS_RESERVED: usize = 64;
/// Connections that one process accepts at once from one holder of a certificate.
pub const HOLDER_CONNECTIONS_MAX: usize = 256;
/// Connections of one holder that may come out of a reserve.
pub const HOLDER_CONNECTIONS_RESERVED: usize = 8;
/// Handshakes that one process has in progress at once; more are asked to retry or refused.
pub const HANDSHAKES_MAX: usize = 512;
/// Handshakes from one address that one process has in progress at once; the oldest makes room.
pub const ADDRESS_HANDSHAKES_MAX: usize = 128;

/// Sessions that a shard remembers.
pub const SESSIONS_MAX: usize = 16 * 1024;
/// Sessions of one holder that a shard remembers.
pub const HOLDER_SESSIONS_MAX: usize = SESSIONS_MAX / 4;
/// Writes of one session that may be in progress at one shard.
pub const SESSION_WINDOW_MAX: usize = 4096;

/// Nodes in a network.
pub const NODES_MAX: usize = 1024;
/// Keyspaces in a network.
pub const KEYSPACES_MAX: usize = 256;
/// Shards in a network, those of all keyspaces together.
pub const SHARDS_MAX: u32 = 1024;
/// Voters of a group.
pub const REPLICATION_MAX: u32 = 9;
/// Regions and nodes between which delays may be emulated.
pub const DELAYS_MAX: usize = 64;
/// Longest average emulated delay, one way, in milliseconds: more than that of any satellite.
pub const DELAY_MS_MAX: u32 = 1000;
/// Entries of the deny list.
pub const DENIED_MAX: usize = 65_536;

/// How far the revision of a view may be ahead of the known one, in changes of the directory. A
/// client that was away for a year may have missed a change every two seconds.
pub const VIEW_REVISIONS_AHEAD_MAX: u64 = 1 << 24;

/// How far a log index may be ahead of the known entries: 34,000 entries a second for a year.
pub const ENTRIES_AHEAD_MAX: u64 = 1 << 40;

/// Longest UDP payload that QUIC tries, in bytes: what a network with jumbo frames carries. Path
/// MTU discovery (RFC 8899) finds the paths that carry less.
pub const PACKET_BYTES_MAX: u16 = 8952;

/// Time for a peer to finish its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a peer to send the rest of a frame once it has begun one.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after which a silent connection is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Interval of keep-alive packets on a quiet connection.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Least time between two progress marks of a watch.
pub const WATCH_PROGRESS: Duration = Duration::from_secs(1);
/// Time after which a node sends a frame on a watch without changes.
pub const WATCH_KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Timeout of a request whose caller sets none.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Validity of a certificate of a node, client or administrator.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(14 * DAY_S);
/// Age at which a holder renews its certificate.
pub const CERTIFICATE_RENEW: Duration = Duration::from_secs(4 * DAY_S);
/// Time after the expiry of a certificate within which its holder gets another one by proving its
/// key: a machine may be off for a season. After that it needs a join token too.
pub const RECERTIFY_WITHIN: Duration = Duration::from_secs(90 * DAY_S);
/// Validity of a bearer token by default.
pub const BEARER_LIFE: Duration = Duration::from_secs(90 * DAY_S);
/// Holders of certificates and of bearer tokens that the server remembers.
pub const HOLDERS_MAX: usize = 16 * 1024;
/// Records of the books: holders and join tokens.
pub const BOOK_RECORDS_MAX: usize = HOLDERS_MAX + 4 * KIB;
/// Longest record of the books, in bytes.
pub const BOOK_RECORD_BYTES_MAX: usize = 4 * KIB;
/// Records in one change of the books.
pub const BOOKS_CHANGE_RECORDS_MAX: usize = 1024;
/// Registration servers of a network.
pub const SERVERS_MAX: usize = 16;
/// Records of a page of the books end once they have this many bytes.
pub const BOOKS_PAGE_BYTES: usize = MIB;
/// Bearer tokens that one message reports as seen.
pub const BEARERS_SEEN_MAX: usize = 128;
/// How long before its issue a certificate begins to be valid. A clock may have been ahead by as
/// much at the issue and be corrected later without invalidating the certificate.
pub const CERTIFICATE_BACKDATED: Duration = Duration::from_secs(10 * 365 * DAY_S);
/// Interval at which a process checks whether its certificate is due for renewal, and whether the
/// clock has jumped.
pub const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const DAY_S: u64 = 24 * 3600;

const _: () = {
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(VALUE_BYTES_DEFAULT <= VALUE_BYTES_MAX);
    // A batch below its target may still take one command of the largest size.
    assert!(BATCH_BYTES_TARGET + KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 * KIB < FRAME_BYTES_MAX);
    // The same holds for a page.
    assert!(
        SCAN_BYTES_MAX + KEY_BYTES_MAX + VALUE_BYTES_MAX + SCAN_KEYS_MAX * 96 < FRAME_BYTES_MAX
    );
    // So does a frame of a watch, with the value before.
    assert!(WATCH_BYTES_TARGET + KEY_BYTES_MAX + 2 * VALUE_BYTES_MAX + 64 * KIB < FRAME_BYTES_MAX);
    assert!(WATCH_REQUEST_BYTES_MAX > 2 * KEY_BYTES_MAX + KIB);
    assert!(FRAME_BYTES_MAX < HOLDER_WATCH_BYTES_MAX);
    assert!(FRAME_BYTES_MAX < HOLDER_RESULT_BYTES_MAX);
    assert!(TOKEN_BYTES_MAX < JOIN_FRAME_BYTES_MAX);
    assert!(KEEP_ALIVE.as_millis() * 2 < IDLE_TIMEOUT.as_millis());
    assert!(CERTIFICATE_RENEW.as_secs() * 3 < CERTIFICATE_LIFE.as_secs());
    assert!(SHARDS_MAX < u32::MAX);
    assert!(HOLDER_CONNECTIONS_MAX * 8 <= CONNECTIONS_MAX);
    assert!(HOLDER_CONNECTIONS_RESERVED * 8 <= ADMIN_CONNECTIONS_RESERVED);
    assert!(ADDRESS_HANDSHAKES_MAX * 4 <= HANDSHAKES_MAX);
    assert!(HOLDER_SESSIONS_MAX * 4 <= SESSIONS_MAX);
    // The inventory of holders fits a frame: three ids, four times and two names for each.
    assert!(
        HOLDERS_MAX * (3 * 18 + 4 * 11 + NAME_BYTES_MAX + USER_BYTES_MAX + 10)
            < SERVER_FRAME_BYTES_MAX
    );
    assert!(BEARERS_SEEN_MAX * 27 < JOIN_FRAME_BYTES_MAX);
    // A report of the largest network fits: ids take 17 bytes, and a shard lists its voters and
    // about as many learners.
    assert!(
        DENIED_MAX * 17
            + NODES_MAX * (17 + 2 + NAME_BYTES_MAX + 2 + REGION_BYTES_MAX + 32)
            + DELAYS_MAX * (2 + NAME_BYTES_MAX + 5 * DELAYS_MAX)
            + KEYSPACES_MAX * (5 + 2 + NAME_BYTES_MAX + 2 * 5 + 4 * 11)
            + SHARDS_MAX as usize * (64 + 2 * REPLICATION_MAX as usize * 17)
            < SERVER_FRAME_BYTES_MAX
    );
};
