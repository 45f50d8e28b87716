//! The kinds of faults, and how often each occurs.

use crate::random::Random;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A node's process is killed.
    Kill,
    /// A node loses its power, and all data that was not synced.
    PowerLoss,
    /// A node loses its power in the middle of a write, which is torn.
    TornWrite,
    /// A node loses its power in the middle of a checkpoint or an installation.
    TornCheckpoint,
    /// A node loses its power in the middle of the replacement of a small file, as it starts.
    TornFile,
    /// The server's machine loses its power while it replaces its books.
    TornBooks,
    /// All nodes lose their power at once.
    Blackout,
    /// All nodes lose their power at once after their disks were slow for a while and all clients
    /// wrote, so many bytes wait to be synced.
    Outage,
    /// A node is stopped cleanly.
    Stop,
    /// The server is killed.
    ServerKill,
    /// A node is cut off in both directions.
    Isolate,
    /// A node is cut off in one direction.
    OneWay,
    /// The nodes are split into two parts.
    Split,
    /// The nodes are split into two parts, with one node in both.
    Bridge,
    /// Each node reaches only its two neighbours.
    Ring,
    /// Messages to a primary arrive seconds late, over connections that outlive a cut of all links
    /// from it. A client is left alone with it.
    Late,
    /// Datagrams are lost, late, doubled and out of order.
    Weather,
    /// A node's process stands still, and its clock goes on.
    Pause,
    /// A node's machine stands still, with its clock.
    Halt,
    /// A node's clock runs fast or slow.
    Drift,
    /// A node's wall clock jumps.
    WallJump,
    /// A node's disk is slow.
    SlowDisk,
    /// A write to a node's disk stalls for a while.
    Stall,
    /// A sync of a node's disk fails.
    FailedSync,
    /// A node's disk is full.
    FullDisk,
    /// A node joins.
    Join,
    /// A node is removed.
    Remove,
    /// A node is drained for a while.
    Drain,
    /// A node is drained, and switched off for good once the network says that it may be; mostly
    /// one that the other nodes do not reach, while a client deposits eventual writes there.
    Empty,
    /// Replicas and primaries are rebalanced.
    Rebalance,
    /// A group's voters change, and its leader is lost for good when the last entry of the change
    /// has reached only the voter that is taken out.
    HalfChange,
    /// A node loses its replicas, gets them again, and is cut off while they are filled.
    Refill,
    /// A task that a node cannot do without panics.
    Panic,
    /// All clients execute transactions, and again and again a node dies, is cut off or stands
    /// still in the middle of one over several shards: the one that drives it, or the primary of
    /// another shard.
    Driver,
    /// A node's directory is copied while it runs, and later put back in place of the right one,
    /// for a while.
    OldCopy,
    /// A second process of a node is started at another address, on a copy of its directory.
    Clone,
}

/// All faults with their weights.
const FAULTS: &[(Fault, u64)] = &[
    (Fault::Kill, 10),
    (Fault::PowerLoss, 8),
    (Fault::TornWrite, 8),
    (Fault::TornCheckpoint, 3),
    (Fault::TornFile, 4),
    (Fault::TornBooks, 4),
    (Fault::Blackout, 2),
    (Fault::Outage, 1),
    (Fault::Stop, 5),
    (Fault::ServerKill, 3),
    (Fault::Isolate, 8),
    (Fault::OneWay, 6),
    (Fault::Split, 5),
    (Fault::Bridge, 4),
    (Fault::Ring, 3),
    (Fault::Late, 3),
    (Fault::Weather, 8),
    (Fault::Pause, 6),
    (Fault::Halt, 4),
    (Fault::Drift, 3),
    (Fault::WallJump, 2),
    (Fault::SlowDisk, 4),
    (Fault::Stall, 4),
    (Fault::FailedSync, 4),
    (Fault::FullDisk, 4),
    (Fault::Join, 4),
    (Fault::Remove, 3),
    (Fault::Drain, 4),
    (Fault::Empty, 3),
    (Fault::Rebalance, 2),
    (Fault::HalfChange, 4),
    (Fault::Refill, 1),
    (Fault::Panic, 3),
    (Fault::Driver, 4),
    (Fault::OldCopy, 3),
    (Fault::Clone, 3),
];

impl Fault {
    /// Draws a fault by weight.
    pub(super) fn draw(random: &mut Random) -> Self {
        let mut at = random.below(FAULTS.iter().map(|(_, weight)| weight).sum());
        for (fault, weight) in FAULTS {
            match at.checked_sub(*weight) {
                Some(left) => at = left,
                None => return *fault,
            }
        }
        Self::Kill
    }
}
