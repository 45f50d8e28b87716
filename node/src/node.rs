//! A running node: the state that its tasks share.
//!
//! The state has parts, so that code takes the one that it needs: the node's [connections], its
//! [store], its [replicas], its knowledge of the network and role in it ([coordination]), and its
//! [tasks]. The other modules below act on them: the node [starts](start), [opens and deletes
//! replicas](groups), [follows the directory](directory), [tracks where shards are](routing),
//! [reports its status](status), and [stops](shutdown).

pub(crate) mod peer_access;
pub(crate) mod observer;

mod error;
mod connections;
mod store;
mod replicas;
mod coordination;
mod diagnosis;
mod tasks;
mod start;
mod directory;
mod groups;
mod keyspaces;
mod opener;
pub(crate) mod reports;
mod routing;
mod node_states;
mod status;
mod shutdown;

use std::net::SocketAddr;
use std::sync::Arc;

use dkv_base::id::{GroupId, NetworkId, NodeId};
use dkv_wire::message::Diagnosis;
use dkv_wire::network::Settings;
use dkv_wire::region::Region;
use tokio::time::Instant;

pub(crate) use self::connections::Connections;
pub(crate) use self::coordination::Coordination;
pub(crate) use self::error::StartError;
pub(crate) use self::replicas::Replicas;
pub(crate) use self::start::Parts;
pub(crate) use self::store::Store;
pub(crate) use self::tasks::{NodeTasks, TaskFactories};
use crate::common::clock::NodeClock;
use crate::common::counters::Counters;
use crate::common::recent::Recent;
use crate::common::ticks::Ticks;
use crate::net::incarnations::Incarnations;
use crate::net::peers::Peers;
use crate::outbox::Outboxes;
use crate::replica::Replica;

/// The identity and address of the node.
#[derive(Clone, Debug)]
pub(crate) struct Me {
    pub(crate) network: NetworkId,
    pub(crate) id: NodeId,
    pub(crate) name: String,
    /// The address where others reach the node.
    pub(crate) address: SocketAddr,
    /// The node's region, if one was configured.
    pub(crate) region: Option<Region>,
}

/// A running node.
pub(crate) struct Node {
    me: Me,
    started: Instant,
    counters: Arc<Counters>,
    connections: Connections,
    store: Store,
    replicas: Replicas,
    coordination: Coordination,
    tasks: NodeTasks,
    diagnosed: Recent<Diagnosis>,
}

impl Node {
    /// Returns the node's id.
    pub(crate) fn id(&self) -> NodeId {
        self.me.id
    }

    /// Returns the node's identity and address.
    pub(crate) fn me(&self) -> &Me {
        &self.me
    }

    /// Returns the node's connections.
    pub(crate) fn connections(&self) -> &Connections {
        &self.connections
    }

    /// Returns the node's data.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the node's replicas.
    pub(crate) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// Returns the node's knowledge of the network, and its part as the coordinator.
    pub(crate) fn coordination(&self) -> &Coordination {
        &self.coordination
    }

    /// Returns the node's tasks.
    pub(crate) fn tasks(&self) -> &NodeTasks {
        &self.tasks
    }

    /// Returns the counters.
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Returns the connections to the other nodes.
    pub(crate) fn peers(&self) -> &Peers {
        self.connections.peers()
    }

    /// Returns this incarnation of the process, and the known ones of the other nodes.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        self.connections.incarnations()
    }

    /// Returns the ticks of the node's periodic tasks.
    pub(crate) fn ticks(&self) -> Ticks {
        self.connections.ticks()
    }

    /// Returns the node's copy of the network's clock.
    pub(crate) fn clock(&self) -> &NodeClock {
        &self.store.clock
    }

    /// Returns the outboxes: eventual writes that the node has accepted but not delivered yet.
    pub(crate) fn outboxes(&self) -> &Outboxes {
        &self.store.outboxes
    }

    /// Returns the replica of the control group.
    pub(crate) fn control(&self) -> &Arc<Replica> {
        &self.replicas.control
    }

    /// Returns the replica of a group, if this node holds one.
    pub(crate) fn group(&self, id: GroupId) -> Option<Arc<Replica>> {
        self.replicas.get(id)
    }

    /// Returns all replicas that this node holds, that of the control group first.
    pub(crate) fn groups(&self) -> Vec<Arc<Replica>> {
        self.replicas.all()
    }

    /// Returns the network's settings.
    pub(crate) fn settings(&self) -> Settings {
        self.coordination.settings()
    }

    /// Ends every task of the node, whatever it is doing.
    pub(crate) async fn end_tasks(&self) {
        self.connections.heartbeats.end().await;
        self.tasks.end().await;
    }
}
