//! Every bound of the protocol, in one place.
//!
//! Whatever a peer, a client or a file can make longer has its limit here, units last. Limits that
//! an operator may change are defaults; the maximum beside them is what the code is built for.

use std::time::Duration;

pub use dkv_base::hlc::CLOCK_SKEW;
pub use dkv_base::id::{FIRST_TERM_MAX, TERMS_AHEAD_MAX};

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;
/// Longest value unless the network's configuration says otherwise, in bytes.
pub const VALUE_BYTES_DEFAULT: usize = 2 * MIB;
/// Longest value that a configuration may allow, in bytes.
pub const VALUE_BYTES_MAX: usize = 16 * MIB;
/// Longest frame on any stream, in bytes.
pub const FRAME_BYTES_MAX: usize = VALUE_BYTES_MAX + 16 * MIB;
/// Longest frame that an unauthenticated peer may send, in bytes.
pub const JOIN_FRAME_BYTES_MAX: usize = 4 * KIB;
/// Longest frame of a request to the registration server, in bytes.
pub const SERVER_FRAME_BYTES_MAX: usize = 4 * MIB;
/// Longest first frame of a stream to a node, which says what the stream is for, in bytes.
pub const OPENING_BYTES_MAX: usize = 256;
/// Longest name of a node, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest name of a region, in bytes.
pub const REGION_BYTES_MAX: usize = 32;
/// Longest text of a join token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;

/// Commands in one batch, that is, in one Raft entry.
pub const BATCH_COMMANDS_MAX: usize = 4096;
/// A batch closes when it holds this many bytes; one command may be larger.
pub const BATCH_BYTES_TARGET: usize = MIB;
/// Keys in one page of a scan.
pub const SCAN_KEYS_MAX: usize = 1024;
/// A page of a scan ends when it holds this many bytes; one pair may be larger.
pub const SCAN_BYTES_MAX: usize = MIB;
/// Requests that one node accepts from one connection before it stops reading from it.
pub const CONNECTION_REQUESTS_MAX: usize = 4096;
/// Streams that one authenticated peer may have open at once. Each takes room before it is opened.
pub const CONNECTION_STREAMS_MAX: u32 = 64;
/// Streams that a node may have open besides, for each group of the node that it calls.
pub const GROUP_STREAMS_MAX: u32 = 4;
/// Streams that an unauthenticated peer may have open at once.
pub const JOIN_STREAMS_MAX: u32 = 1;
/// Connections that one process accepts at once.
pub const CONNECTIONS_MAX: usize = 4096;
/// Connections that one process accepts at once besides, of nodes alone.
pub const NODE_CONNECTIONS_RESERVED: usize = 512;
/// Connections that one process accepts at once besides, of administrators alone.
pub const ADMIN_CONNECTIONS_RESERVED: usize = 64;
/// Connections that one process accepts at once from one holder of a certificate.
pub const HOLDER_CONNECTIONS_MAX: usize = 256;
/// Those of them that may be out of a reserve.
pub const HOLDER_CONNECTIONS_RESERVED: usize = 8;
/// Handshakes that one process has under way at once; more are asked to retry or refused.
pub const HANDSHAKES_MAX: usize = 512;
/// Handshakes of one address that one process has under way at once; the oldest makes room.
pub const ADDRESS_HANDSHAKES_MAX: usize = 128;

/// Sessions that a shard remembers.
pub const SESSIONS_MAX: usize = 16 * 1024;
/// Sessions of one holder that a shard remembers.
pub const HOLDER_SESSIONS_MAX: usize = SESSIONS_MAX / 4;
/// Writes of one session that may be under way at one shard.
pub const SESSION_WINDOW_MAX: usize = 4096;

/// Nodes in a network.
pub const NODES_MAX: usize = 1024;
/// Shards in a network.
pub const SHARDS_MAX: u32 = 1024;
/// Voters of a group.
pub const REPLICATION_MAX: u32 = 9;
/// Regions and nodes between which there may be delays.
pub const DELAYS_MAX: usize = 64;
/// Longest average delay, one way, in milliseconds: a satellite is nearer.
pub const DELAY_MS_MAX: u32 = 1000;
/// Entries of the deny list.
pub const DENIED_MAX: usize = 65_536;

/// How far an index may be past the entries that are known: 34,000 entries a second for a year.
pub const ENTRIES_AHEAD_MAX: u64 = 1 << 40;

/// Longest UDP payload that QUIC tries, in bytes: what a network with jumbo frames carries. Path MTU
/// discovery (RFC 8899) finds the paths that carry less.
pub const PACKET_BYTES_MAX: u16 = 8952;

/// Time that a peer has to finish its handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a peer has to send the rest of a frame once it has begun one.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(20);
/// Time after which a silent connection is closed.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a quiet connection shows that it lives.
pub const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Deadline of a request when its caller names none.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Life of a certificate of a node, client or administrator.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(14 * DAY_S);
/// Age at which a holder asks for a new certificate.
pub const CERTIFICATE_RENEW: Duration = Duration::from_secs(4 * DAY_S);
/// Time after a certificate's end within which its holder gets another by the proof of its key: a
/// machine may be off for a season. After that it takes a join token too.
pub const RECERTIFY_WITHIN: Duration = Duration::from_secs(90 * DAY_S);
/// Life of a bearer token unless another one is asked for.
pub const BEARER_LIFE: Duration = Duration::from_secs(90 * DAY_S);
/// Holders of certificates and of bearer tokens that the server remembers.
pub const HOLDERS_MAX: usize = 16 * 1024;
/// Bearer tokens that are reported together as seen.
pub const BEARERS_SEEN_MAX: usize = 128;
/// How long before its making a certificate is valid already. So long a clock may have been ahead
/// when it was made, and be set right, without anybody being cut off.
pub const CERTIFICATE_BACKDATED: Duration = Duration::from_secs(10 * 365 * DAY_S);
/// How often a process looks whether its certificate is due, and with it whether the clock has
/// jumped.
pub const CERTIFICATE_CHECK: Duration = Duration::from_secs(5);

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const DAY_S: u64 = 24 * 3600;

const _: () = {
    assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX < FRAME_BYTES_MAX);
    assert!(VALUE_BYTES_DEFAULT <= VALUE_BYTES_MAX);
    // A batch below its target may still take one command of the largest size.
    assert!(BATCH_BYTES_TARGET + KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 * KIB < FRAME_BYTES_MAX);
    // So may a page.
    assert!(
        SCAN_BYTES_MAX + KEY_BYTES_MAX + VALUE_BYTES_MAX + SCAN_KEYS_MAX * 32 < FRAME_BYTES_MAX
    );
    assert!(TOKEN_BYTES_MAX < JOIN_FRAME_BYTES_MAX);
    assert!(KEEP_ALIVE.as_millis() * 2 < IDLE_TIMEOUT.as_millis());
    assert!(CERTIFICATE_RENEW.as_secs() * 3 < CERTIFICATE_LIFE.as_secs());
    assert!(SHARDS_MAX < u32::MAX);
    assert!(HOLDER_CONNECTIONS_MAX * 8 <= CONNECTIONS_MAX);
    assert!(HOLDER_CONNECTIONS_RESERVED * 8 <= ADMIN_CONNECTIONS_RESERVED);
    assert!(ADDRESS_HANDSHAKES_MAX * 4 <= HANDSHAKES_MAX);
    assert!(HOLDER_SESSIONS_MAX * 4 <= SESSIONS_MAX);
    // So does the inventory: three ids, four times, and a name.
    assert!(HOLDERS_MAX * (3 * 18 + 4 * 11 + NAME_BYTES_MAX + 8) < SERVER_FRAME_BYTES_MAX);
    assert!(BEARERS_SEEN_MAX * 27 < JOIN_FRAME_BYTES_MAX);
    // A report of the largest network fits: ids take 17 bytes, and a shard lists its voters and
    // about as many learners.
    assert!(
        DENIED_MAX * 17
            + NODES_MAX * (17 + 2 + NAME_BYTES_MAX + 2 + REGION_BYTES_MAX + 32)
            + DELAYS_MAX * (2 + NAME_BYTES_MAX + 5 * DELAYS_MAX)
            + SHARDS_MAX as usize * (64 + 2 * REPLICATION_MAX as usize * 17)
            < SERVER_FRAME_BYTES_MAX
    );
};
