//! All times of the router, in one place.

use std::time::Duration;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Silence of a node that nothing is known about yet after which others are asked.
pub(crate) const PATIENCE_FIRST: Duration = ms(60);
/// Shortest such silence, however fast the node is otherwise.
pub(crate) const PATIENCE_MIN: Duration = ms(20);
/// Longest such silence, however slow a near node is otherwise. A far one has as long as its
/// answers take, and half of that.
pub(crate) const PATIENCE_MAX: Duration = ms(250);
/// Time between two rounds of asking others.
pub(crate) const PROBE_EVERY: Duration = ms(10);
/// Time after which a question for a view to a near node is taken to be lost.
pub(crate) const PROBE_TIMEOUT: Duration = ms(250);
/// Nodes that are asked in one round.
pub(crate) const PROBES_MAX: usize = 8;
/// Silence after which the silent node itself is asked too, to tell a slow shard from a dead
/// process.
pub(crate) const PROBE_SILENT_AFTER: Duration = ms(300);
/// Silence after which another connection to a near node is made: the process may have started
/// again at the same address, where the old connection means nothing to it.
pub(crate) const RECONNECT_AFTER: Duration = ms(1000);
/// Trouble after which the server is asked.
pub(crate) const ASK_SERVER_AFTER: Duration = ms(200);
/// Time between two questions to the server.
pub(crate) const ASK_SERVER_EVERY: Duration = ms(250);
/// Pause after the first answer that asks to come again; it doubles up to the longest.
pub(crate) const BACKOFF_MIN: Duration = ms(10);
/// Longest such pause.
pub(crate) const BACKOFF_MAX: Duration = ms(200);
/// Pause after a connection failed; it doubles up to the longest.
pub(crate) const REDIAL_MIN: Duration = ms(50);
/// Longest such pause.
pub(crate) const REDIAL_MAX: Duration = ms(2000);
/// Time without a word from a primary that cannot be connected to after which strong reads are sent
/// to another replica: longer than a failover takes.
pub(crate) const DETOUR_AFTER: Duration = ms(500);
/// Redirects in a row that are followed at once.
pub(crate) const REDIRECTS_MAX: u32 = 2;
/// Times that a shard may forget our session for one write before we give up.
pub(crate) const SESSION_EXPIRIES_MAX: u32 = 3;
/// Nodes that are connected to ahead of need.
pub(crate) const WARM_MAX: usize = 32;

/// The pause of somebody who was told to come again after `told`: never less than that, longer from
/// time to time, and of all who were told at once, each another one. `whose` tells them apart.
pub(crate) fn jittered(told: Duration, whose: u64, times: u32) -> Duration {
    let pause = told.max(doubled(BACKOFF_MIN, times + 1, BACKOFF_MAX));
    // SplitMix64's finish: numbers that follow each other become any numbers.
    let mut mixed = whose.wrapping_add(u64::from(times).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    pause + pause.mul_f64((mixed >> 48) as f64 / 65536.0)
}

/// `first`, doubled for each time after the first, up to `longest`.
pub(crate) fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    (first * (1 << times.saturating_sub(1).min(10))).min(longest)
}
