//! Tells each group how far away its members are.
//!
//! The connections that carry the group's messages measure the distance. A connection has a first
//! measurement as soon as it is made, so a group knows the distance before it sends anything.
//!
//! A member that was paused for a while looks far away when it goes on, because its late answers
//! count as round trips. No machine moves that fast, so a distance grows slowly, or jumps only
//! after it has been larger for a while.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::NodeId;
use tokio::time::Instant;

use crate::node::Node;

/// Interval between measurements.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Most that a round trip may grow in a second.
const GROWS: Duration = Duration::from_millis(10);
/// Time for which a round trip must stay longer before the task accepts it.
const SUSTAINED: Duration = Duration::from_secs(5);

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut known: BTreeMap<NodeId, (Option<SocketAddr>, Distance)> = BTreeMap::new();
    loop {
        node.ticks().pause(LOOK_EVERY).await;
        let now = Instant::now();
        let mut measured: BTreeMap<NodeId, Option<Duration>> = BTreeMap::new();
        for group in node.groups() {
            let others = group.members().into_iter().filter(|member| *member != node.id());
            let distances = others.filter_map(|member| {
                *measured.entry(member).or_insert_with(|| {
                    let round_trip = node.peers().round_trip(member)?;
                    let address = node.peers().address(member);
                    let (at, distance) =
                        known.entry(member).or_insert_with(|| (address, Distance::default()));
                    if *at != address {
                        (*at, *distance) = (address, Distance::default());
                    }
                    Some(distance.take(round_trip, now))
                })
            });
            // If no member can be reached just now, the last known value is the best guess.
            if let Some(farthest) = distances.max() {
                group.time_scale().set_round_trip(farthest);
            }
        }
        known.retain(|member, _| measured.contains_key(member));
    }
}

/// Accepted distance to a member, as plain data.
#[derive(Debug, Default)]
struct Distance {
    believed: Option<(Duration, Instant)>,
    /// Since when every measurement has exceeded the accepted value, and the smallest of them.
    longer: Option<(Instant, Duration)>,
}

impl Distance {
    /// Takes a measurement. Returns the distance to use.
    fn take(&mut self, measured: Duration, now: Instant) -> Duration {
        let (before, at) = self.believed.unwrap_or((measured, now));
        let grown = before + GROWS.mul_f64(now.saturating_duration_since(at).as_secs_f64());
        let mut believed = measured.min(grown);
        if measured > grown {
            let (since, least) = self.longer.unwrap_or((now, measured));
            let least = least.min(measured);
            self.longer = Some((since, least));
            if now.saturating_duration_since(since) >= SUSTAINED {
                believed = least;
                self.longer = None;
            }
        } else {
            self.longer = None;
        }
        self.believed = Some((believed, now));
        believed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_member_that_was_paused_is_no_farther_away() {
        let (mut distance, begun) = (Distance::default(), Instant::now());
        assert_eq!(distance.take(ms(1), begun), ms(1));
        // An old measurement loses an eighth of its weight with each answer.
        for (half_second, measured) in (1..).zip([312, 273, 239, 209, 183, 160, 140, 123, 107, 94])
        {
            let now = begun + ms(500) * half_second;
            let believed = distance.take(ms(measured), now);
            assert!(believed <= ms(1) + ms(5) * half_second, "{believed:?}");
        }
        assert_eq!(distance.take(ms(2), begun + Duration::from_secs(6)), ms(2));
    }

    #[test]
    fn a_way_that_is_longer_is_believed_at_once_if_it_is_the_first_and_else_after_a_while() {
        let (mut distance, begun) = (Distance::default(), Instant::now());
        assert_eq!(distance.take(ms(400), begun), ms(400));
        assert_eq!(distance.take(ms(100), begun), ms(100));
        let mut last = ms(0);
        for second in 1..=6 {
            last = distance.take(ms(900), begun + Duration::from_secs(second));
        }
        assert_eq!(last, ms(900));
    }
}
