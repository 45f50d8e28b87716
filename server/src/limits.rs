//! The bounds of the server itself; those of the protocol are in [`dkv_wire::limits`].

use std::time::Duration;

use dkv_wire::limits;

/// Longest request of a client or administrator, in bytes. Only a node's report is longer.
pub(crate) const REQUEST_BYTES_MAX: usize = limits::JOIN_FRAME_BYTES_MAX;
/// Streams that one certified peer may have open at once; each may hold one frame in memory.
pub(crate) const STREAMS_MAX: u32 = 16;
/// Connections that one certificate holder may have at once.
pub(crate) const HOLDER_CONNECTIONS_MAX: usize = 64;
/// Joiners that are connected at once; more are turned away. Most connections stay free for
/// those who have a certificate already.
pub(crate) const JOINERS_MAX: usize = 256;
/// Those of them that come from one address; the oldest makes room.
pub(crate) const ADDRESS_JOINERS_MAX: usize = JOINERS_MAX / 4;
/// Joiners whose tokens are checked and whose certificates are signed at once.
pub(crate) const SIGNING_MAX: usize = 8;
/// Time that a joiner may take from its first packet to its last.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Time that a joiner waits for its turn to be signed before it is told to come back.
pub(crate) const SIGNING_TIMEOUT: Duration = Duration::from_secs(3);

/// Changes that wait to be written.
pub(crate) const WAITING_MAX: usize = 1024;
/// Changes that share one write.
pub(crate) const GROUP_MAX: usize = 256;

/// Join tokens that the server keeps.
pub(crate) const TOKENS_MAX: usize = 1024;
/// Holders that a token remembers to have admitted, the newest ones.
pub(crate) const ADMITTED_MAX: usize = 16;

/// Nodes that are called back at once.
pub(crate) const CALLS_MAX: usize = 8;
/// Time before a node is called back again: it makes the server send packets to an address of its
/// choice.
pub(crate) const CALL_AGAIN: Duration = Duration::from_secs(10);
/// Nodes of which the server remembers how it called them back.
pub(crate) const CALLED_MAX: usize = limits::NODES_MAX;

/// Silence of the coordinator after which it is shown as suspect, in milliseconds.
pub(crate) const SUSPECT_AFTER_MS: u64 = 3_000;
/// Silence of the coordinator after which it is shown as down, in milliseconds.
pub(crate) const DOWN_AFTER_MS: u64 = 15_000;

/// Time for which the word of a node about the control group counts, in milliseconds. It says it
/// every ten seconds.
pub(crate) const SAID_FOR_MS: u64 = 30_000;
/// Silence of the voters after which the server listens to those who are left, in milliseconds.
pub(crate) const SILENCE_MS: u64 = 60_000;
/// Time between two writes of the books for nothing but how far the nodes' logs are, in
/// milliseconds.
pub(crate) const MARKS_SAVED_MS: u64 = 2_000;
/// Time in which a run of a node that lives is heard again, in milliseconds: it asks every 3
/// seconds.
pub(crate) const RUN_SILENT_MS: u64 = 4_000;
/// Time in which a run of a node that was heard is taken to be alive, in milliseconds.
pub(crate) const RUN_HEARD_MS: u64 = 15_000;
/// Time for which it is shown that a node was started on an older copy, in milliseconds.
pub(crate) const OLDER_SHOWN_MS: u64 = 600_000;
/// Runs of one node that are remembered, the newest ones.
pub(crate) const RUNS_MAX: usize = 8;

const _: () = {
    assert!(JOINERS_MAX * 4 <= limits::CONNECTIONS_MAX);
    assert!(SUSPECT_AFTER_MS < DOWN_AFTER_MS);
    assert!(SAID_FOR_MS < SILENCE_MS);
    assert!(SIGNING_TIMEOUT.as_millis() < JOIN_TIMEOUT.as_millis());
};
