//! What the router knows about one node and about one shard.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::{NodeId, Number, Revision, SessionId};

use super::session::Session;
use super::timing;

/// A node and the connection to it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether the server or a trusted view names it as a member. Other nodes are asked for their
    /// status and nothing else.
    pub(crate) is_member: bool,
    /// Whether it is in the client's own region.
    pub(crate) in_own_region: bool,
    /// Generation of the established connection.
    pub(crate) connection: Option<u64>,
    /// Generation of the connection that is being established.
    pub(crate) dialing: Option<u64>,
    /// Generation of the last connection that was asked for.
    pub(crate) generation: u64,
    /// Failed connections in a row.
    pub(crate) failures: u32,
    /// Earliest time of the next connection attempt.
    pub(crate) retry_at: Duration,
    /// Requests that it has not answered.
    pub(crate) outstanding: usize,
    /// Time that it may need to ask other nodes for the answers it owes.
    pub(crate) forwarding_time: Duration,
    /// Since when it owes an answer and has been silent.
    pub(crate) silent_since: Duration,
    /// Smoothed time of an answer.
    pub(crate) round_trip: Option<Duration>,
    /// Smoothed time of an answer that it gives without asking other nodes. Before the first such
    /// answer, the connection's round-trip time.
    pub(crate) direct_round_trip: Option<Duration>,
    /// The request for its view that is under way, and when it was sent.
    pub(crate) probe: Option<(u64, Duration)>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_member: false,
            in_own_region: false,
            connection: None,
            dialing: None,
            generation: 0,
            failures: 0,
            retry_at: Duration::ZERO,
            outstanding: 0,
            forwarding_time: Duration::ZERO,
            silent_since: Duration::ZERO,
            round_trip: None,
            direct_round_trip: None,
            probe: None,
        }
    }

    /// Returns the silence of this node after which other nodes are asked.
    pub(crate) fn patience(&self) -> Duration {
        let usual = match self.round_trip {
            None => timing::PATIENCE_FIRST,
            Some(time) => {
                (time * 8).clamp(timing::PATIENCE_MIN, timing::PATIENCE_MAX).max(time * 3 / 2)
            }
        };
        usual.max(self.quorum_time()) + self.forwarding_time
    }

    /// Returns the time that a distant node needs: a round trip from here, and twice that to reach
    /// a majority.
    pub(crate) fn quorum_time(&self) -> Duration {
        self.direct_round_trip.unwrap_or_default() * 3
    }

    /// Returns the time after which an answer that the node gives by itself is considered lost.
    pub(crate) fn probe_timeout(&self) -> Duration {
        timing::PROBE_TIMEOUT.max(self.direct_round_trip.unwrap_or_default() * 2)
    }

    /// Returns the silence after which a new connection is established.
    pub(crate) fn reconnect_after(&self) -> Duration {
        timing::RECONNECT_AFTER.max(self.patience() * 2)
    }

    /// Returns whether the node has owed an answer for longer than `patience` in silence.
    pub(crate) fn is_silent(&self, now: Duration, patience: Duration) -> bool {
        self.outstanding > 0 && now.saturating_sub(self.silent_since) >= patience
    }

    /// Records a request to the node, for which it may have to ask other nodes for
    /// `forwarding_time`.
    pub(crate) fn sent(&mut self, now: Duration, forwarding_time: Duration) {
        if self.outstanding == 0 {
            self.silent_since = now;
            self.forwarding_time = Duration::ZERO;
        }
        self.forwarding_time = self.forwarding_time.max(forwarding_time);
        self.outstanding += 1;
    }

    /// Returns the distance of the node: nodes of the client's own region first, then by measured
    /// time.
    pub(crate) fn distance(&self) -> (bool, Duration) {
        // A node that was never measured counts as near, so that it is tried.
        (!self.in_own_region, self.direct_round_trip.unwrap_or_default())
    }

    /// Records the time of an answer; `alone` if the node had to ask no other node for it.
    pub(crate) fn measured(&mut self, time: Duration, alone: bool) {
        smooth(&mut self.round_trip, time);
        if alone {
            smooth(&mut self.direct_round_trip, time);
        }
    }
}

fn smooth(smoothed: &mut Option<Duration>, time: Duration) {
    *smoothed = Some(smoothed.map_or(time, |smoothed| (smoothed * 7 + time) / 8));
}

/// A shard, or the control group.
#[derive(Debug)]
pub(crate) struct Group {
    /// The node that is taken to be its primary.
    pub(crate) primary: Option<NodeId>,
    /// Whether that node has served a request since it was taken to be the primary.
    pub(crate) confirmed: bool,
    /// Whether the last reply was not that of a healthy primary.
    pub(crate) suspected: bool,
    /// Redirects in a row.
    pub(crate) redirects: u32,
    /// The nodes that have a replica.
    pub(crate) replicas: Vec<NodeId>,
    /// The latest revision that an answer has shown; a session may not fall behind it.
    pub(crate) seen: Revision,
    /// The earliest revision that shows all transactions over several shards of this session. The
    /// shard may not have reached it.
    pub(crate) promised: Revision,
    /// For each node's outbox, the last write that an answer has shown; a session may not lack it.
    pub(crate) deposits: BTreeMap<NodeId, Number>,
    /// Requests that wait for the primary.
    pub(crate) waiting: usize,
    /// Since when requests wait and none has been served.
    pub(crate) silent_since: Duration,
    /// Earliest time of the next round of asking other replicas for their views.
    pub(crate) probe_at: Duration,
    /// Earliest time of the next question to the server.
    pub(crate) ask_server_at: Duration,
    pub(crate) session: Session,
    /// The request that opens the session; the last such request if it has ended.
    pub(crate) opening: Option<u64>,
    /// Writes that wait for the session.
    pub(crate) queue: VecDeque<u64>,
}

impl Group {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            primary: None,
            confirmed: false,
            suspected: false,
            redirects: 0,
            replicas: Vec::new(),
            seen: Revision(0),
            promised: Revision(0),
            deposits: BTreeMap::new(),
            waiting: 0,
            silent_since: Duration::ZERO,
            probe_at: Duration::ZERO,
            ask_server_at: Duration::ZERO,
            session: Session::new(session),
            opening: None,
            queue: VecDeque::new(),
        }
    }

    /// Records that a request begins to wait for the primary.
    pub(crate) fn wait(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.silent_since = now;
            self.ask_server_at = now + timing::ASK_SERVER_AFTER;
        }
        self.waiting += 1;
    }
}
