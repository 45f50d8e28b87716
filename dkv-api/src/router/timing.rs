//! All durations of the router.

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Silence of a node of unknown speed after which other nodes are asked.
pub(crate) const PATIENCE_FIRST: Duration = ms(60);
/// Shortest such silence, however fast the node is.
pub(crate) const PATIENCE_MIN: Duration = ms(20);
/// Longest such silence of a near node, however slow it is. A distant node has one and a half times
/// as long as its answers take.
pub(crate) const PATIENCE_MAX: Duration = ms(250);
/// Time between two rounds of asking other nodes.
pub(crate) const PROBE_EVERY: Duration = ms(10);
/// Time after which a request for a view to a near node is considered lost.
pub(crate) const PROBE_TIMEOUT: Duration = ms(250);
/// Nodes that are asked in one round.
pub(crate) const PROBES_MAX: usize = 8;
/// Silence after which the silent node itself is asked as well, to tell a slow shard from a dead
/// process.
pub(crate) const PROBE_SILENT_AFTER: Duration = ms(300);
/// Silence after which a new connection to a near node is established: the process may have
/// restarted at the same address, where the old connection is unknown.
pub(crate) const RECONNECT_AFTER: Duration = ms(1000);
/// Time without service after which the server is asked.
pub(crate) const ASK_SERVER_AFTER: Duration = ms(200);
/// Time between two questions to the server.
pub(crate) const ASK_SERVER_EVERY: Duration = ms(250);
/// Back-off after the first refusal that asks to try again; it doubles up to the longest.
pub(crate) const BACKOFF_MIN: Duration = ms(10);
/// Longest such back-off.
pub(crate) const BACKOFF_MAX: Duration = ms(200);
/// Back-off after a failed connection; it doubles up to the longest.
pub(crate) const REDIAL_MIN: Duration = ms(50);
/// Longest such back-off.
pub(crate) const REDIAL_MAX: Duration = ms(2000);
/// Time without service from an unreachable primary after which strong reads go to another replica.
/// It is longer than a failover takes.
pub(crate) const DETOUR_AFTER: Duration = ms(500);
/// Redirects in a row that are followed at once.
pub(crate) const REDIRECTS_MAX: u32 = 2;
/// Times that a shard may not know our session before the write fails.
pub(crate) const SESSION_EXPIRIES_MAX: u32 = 3;
/// Nodes that are connected to ahead of need.
pub(crate) const WARM_MAX: usize = 32;

/// Returns a back-off of at least `told`, as a node asked for. It grows with the number of refusals
/// and is random, so that clients refused at the same time do not return together. `whose` is the
/// seed.
pub(crate) fn jittered(told: Duration, whose: u64, times: u32) -> Duration {
    let pause = told.max(doubled(BACKOFF_MIN, times + 1, BACKOFF_MAX));
    // The finalizer of SplitMix64: consecutive numbers become uniformly distributed.
    let mut mixed = whose.wrapping_add(u64::from(times).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    pause + pause.mul_f64((mixed >> 48) as f64 / 65536.0)
}

/// Returns `first`, doubled for each time after the first, up to `longest`.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    (first * (1 << times.saturating_sub(1).min(10))).min(longest)
}
