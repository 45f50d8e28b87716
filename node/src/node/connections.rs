//! A node's connections: with the other nodes, with the registration server, and from clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dkv_wire::acceptor::Acceptor;
use dkv_wire::network::{Delays, LinkDelay, NodeInfo};
use dkv_wire::quic::Endpoint;

use super::Me;
use super::peer_access::Vouchers;
use crate::common::ticks::Ticks;
use crate::net::incarnations::Incarnations;
use crate::net::peers::Peers;
use crate::net::quota::Quotas;
use crate::net::server_link::ServerLink;
use crate::net::user_limits::UserLimits;
use crate::raft::HeartbeatCoalescer;

/// The connections of a node.
pub(crate) struct Connections {
    pub(super) endpoint: Endpoint,
    pub(super) acceptor: Arc<Acceptor>,
    pub(super) peers: Peers,
    pub(super) heartbeats: HeartbeatCoalescer,
    pub(super) server: Arc<ServerLink>,
    pub(super) incarnations: Incarnations,
    /// Nodes that the server or members vouch for.
    vouchers: Vouchers,
    quotas: Quotas,
    user_limits: UserLimits,
    /// Whether the server has called this node back at its address.
    called_back: AtomicBool,
}

impl Connections {
    pub(super) fn new(
        me: &Me,
        endpoint: Endpoint,
        acceptor: Arc<Acceptor>,
        server: Arc<ServerLink>,
        incarnations: Incarnations,
    ) -> Self {
        let peers = Peers::greeting(endpoint.clone(), Arc::clone(&acceptor), incarnations.clone());
        let heartbeats = HeartbeatCoalescer::new(me.id, peers.clone());
        let (vouchers, quotas, user_limits, called_back) = Default::default();
        Self {
            endpoint,
            acceptor,
            peers,
            heartbeats,
            server,
            incarnations,
            vouchers,
            quotas,
            user_limits,
            called_back,
        }
    }

    /// Returns the node's end of its connections.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the connections to the other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Returns the nodes that are vouched for by others than this node's logs.
    pub(crate) fn vouchers(&self) -> &Vouchers {
        &self.vouchers
    }

    /// Returns the link to the registration server.
    pub(crate) fn server(&self) -> &Arc<ServerLink> {
        &self.server
    }

    /// Returns this incarnation of the process, and the known ones of the other nodes.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    /// Returns the quotas of the peers.
    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Returns what users have used up of their limits.
    pub(crate) fn user_limits(&self) -> &UserLimits {
        &self.user_limits
    }

    /// Announces that heartbeats for this many groups are being sent now.
    pub(crate) fn expect_heartbeats(&self, groups: usize) {
        self.heartbeats.expect(groups);
    }

    /// Returns the ticks of the node's periodic tasks.
    pub(crate) fn ticks(&self) -> Ticks {
        self.heartbeats.ticks()
    }

    /// Records that the server has called this node back at its address.
    pub(crate) fn set_called_back(&self) {
        self.called_back.store(true, Ordering::Relaxed);
    }

    /// Returns whether the server has called this node back at its address.
    pub(crate) fn was_called_back(&self) -> bool {
        self.called_back.load(Ordering::Relaxed)
    }

    /// Delays packets from `me` to other nodes, if the network simulates distances.
    pub(crate) fn keep_apart(&self, me: &Me, delays: &Delays, nodes: &[NodeInfo]) {
        if delays.is_empty() {
            return;
        }
        let own = delays.place(Some(&me.name), me.region.as_ref());
        let others = nodes.iter().filter(|node| node.id != me.id);
        // The other nodes delay their own packets.
        let links = delays.link_delays(own, others).into_iter();
        let links = links.map(|(address, to)| (address, LinkDelay { from: Duration::ZERO, ..to }));
        let links = links.filter(|(_, delay)| !delay.to.is_zero());
        self.endpoint.set_link_delays(links.collect(), delays.vary);
    }
}
