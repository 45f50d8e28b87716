//! What the router knows of one node and of one shard.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use dkv_base::id::{NodeId, Number, Revision, SessionId};

use super::timing;
use crate::session::Session;

/// A node, and the connection to it.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whether the server, or a view that is believed, names it as a node of the network. Others
    /// are asked how they are at most.
    pub(crate) is_member: bool,
    /// Whether it is in the client's own region.
    pub(crate) is_near: bool,
    /// Number of the connection that is up.
    pub(crate) up: Option<u64>,
    /// Number of the connection that is being made.
    pub(crate) dialing: Option<u64>,
    /// Number of the last connection that was asked for.
    pub(crate) generation: u64,
    /// Connections that failed in a row.
    pub(crate) failures: u32,
    /// Not to be connected to before.
    pub(crate) retry_at: Duration,
    /// Attempts that it has not answered.
    pub(crate) outstanding: usize,
    /// Time that it may take to ask others for what it owes.
    pub(crate) asks: Duration,
    /// Since when it owes an answer and has said nothing.
    pub(crate) quiet_since: Duration,
    /// Smoothed time of an answer.
    pub(crate) round_trip: Option<Duration>,
    /// Smoothed time of an answer that it gives without asking others; before the first, that of
    /// the connection's packets.
    pub(crate) reach: Option<Duration>,
    /// The question for its view that is under way, and since when.
    pub(crate) probe: Option<(u64, Duration)>,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            is_member: false,
            is_near: false,
            up: None,
            dialing: None,
            generation: 0,
            failures: 0,
            retry_at: Duration::ZERO,
            outstanding: 0,
            asks: Duration::ZERO,
            quiet_since: Duration::ZERO,
            round_trip: None,
            reach: None,
            probe: None,
        }
    }

    /// Silence of this node that is worth asking others about.
    pub(crate) fn patience(&self) -> Duration {
        let usual = match self.round_trip {
            None => timing::PATIENCE_FIRST,
            Some(time) => {
                (time * 8).clamp(timing::PATIENCE_MIN, timing::PATIENCE_MAX).max(time * 3 / 2)
            }
        };
        usual.max(self.there_and_to_a_majority()) + self.asks
    }

    /// Of a node that is far: the way there and back, and as far again to a majority.
    pub(crate) fn there_and_to_a_majority(&self) -> Duration {
        self.reach.unwrap_or_default() * 3
    }

    /// Time after which an answer that it gives alone is taken to be lost.
    pub(crate) fn lost_after(&self) -> Duration {
        timing::PROBE_LOST_AFTER.max(self.reach.unwrap_or_default() * 2)
    }

    /// Silence after which it is connected to anew.
    pub(crate) fn reconnect_after(&self) -> Duration {
        timing::RECONNECT_AFTER.max(self.patience() * 2)
    }

    /// Whether it has owed an answer for longer than `patience` and has said nothing.
    pub(crate) fn is_silent(&self, now: Duration, patience: Duration) -> bool {
        self.outstanding > 0 && now.saturating_sub(self.quiet_since) >= patience
    }

    /// A request was sent to it, for which it may have to ask others for so long.
    pub(crate) fn sent(&mut self, now: Duration, asks: Duration) {
        if self.outstanding == 0 {
            self.quiet_since = now;
            self.asks = Duration::ZERO;
        }
        self.asks = self.asks.max(asks);
        self.outstanding += 1;
    }

    /// How far it is: first those of the client's own region, then by measured time.
    pub(crate) fn distance(&self) -> (bool, Duration) {
        // Of a node that was never measured nothing bad is known: it is tried.
        (!self.is_near, self.reach.unwrap_or_default())
    }

    /// An answer has taken so long; `alone` if the node had nobody to ask for it.
    pub(crate) fn measured(&mut self, time: Duration, alone: bool) {
        smooth(&mut self.round_trip, time);
        if alone {
            smooth(&mut self.reach, time);
        }
    }
}

fn smooth(smoothed: &mut Option<Duration>, time: Duration) {
    *smoothed = Some(smoothed.map_or(time, |smoothed| (smoothed * 7 + time) / 8));
}

/// A shard, or the control group.
#[derive(Debug)]
pub(crate) struct Group {
    /// Who is believed to lead it.
    pub(crate) primary: Option<NodeId>,
    /// Whether that node has served a request since it is believed to.
    pub(crate) confirmed: bool,
    /// Whether the last answer was none of a primary in good order.
    pub(crate) doubted: bool,
    /// Redirects in a row.
    pub(crate) redirects: u32,
    /// Who holds it.
    pub(crate) replicas: Vec<NodeId>,
    /// The latest revision that an answer has shown: what a session may not fall behind.
    pub(crate) seen: Revision,
    /// Of each node's outbox the last write that an answer has shown: what a session may not lack.
    pub(crate) deposits: BTreeMap<NodeId, Number>,
    /// Requests that wait for its primary.
    pub(crate) waiting: usize,
    /// Since when something waits and nothing has been served.
    pub(crate) quiet_since: Duration,
    /// When to ask others for their view, at the earliest.
    pub(crate) probe_at: Duration,
    /// When to ask the server, at the earliest.
    pub(crate) ask_server_at: Duration,
    pub(crate) session: Session,
    /// The request that opens it, the last one if it is done.
    pub(crate) opening: Option<u64>,
    /// Writes that wait for the session.
    pub(crate) queue: VecDeque<u64>,
}

impl Group {
    pub(crate) fn new(session: SessionId) -> Self {
        Self {
            primary: None,
            confirmed: false,
            doubted: false,
            redirects: 0,
            replicas: Vec::new(),
            seen: Revision(0),
            deposits: BTreeMap::new(),
            waiting: 0,
            quiet_since: Duration::ZERO,
            probe_at: Duration::ZERO,
            ask_server_at: Duration::ZERO,
            session: Session::new(session),
            opening: None,
            queue: VecDeque::new(),
        }
    }

    /// A request begins to wait for the primary.
    pub(crate) fn wait(&mut self, now: Duration) {
        if self.waiting == 0 {
            self.quiet_since = now;
            self.ask_server_at = now + timing::ASK_SERVER_AFTER;
        }
        self.waiting += 1;
    }
}
