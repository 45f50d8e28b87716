//! The start of a node from its parts.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::GroupId;
use dkv_base::supervise::Failure;
use dkv_wire::acceptor::Acceptor;
use dkv_wire::network::Settings;
use dkv_wire::quic::Endpoint;
use tokio::time::Instant;

use super::connections::Connections;
use super::coordination::Coordination;
use super::error::StartError;
use super::opener::GroupOpener;
use super::replicas::Replicas;
use super::store::Store;
use super::tasks::{NodeTasks, TaskFactories};
use super::{Me, Node};
use crate::common::counters::Counters;
use crate::common::recent::Recent;
use crate::net::incarnations::{self, Incarnations};
use crate::net::server_link::ServerLink;
use crate::raft;
use crate::storage::data_dir::DataDir;
use dkv_state::Engine;
use dkv_wal::Wal;

/// The parts of which a node consists.
pub(crate) struct Parts {
    pub(crate) me: Me,
    pub(crate) settings: Settings,
    /// The time from which a request is slow; zero if none ever is.
    pub(crate) slow_request: Duration,
    pub(crate) founder: bool,
    pub(crate) data_dir: DataDir,
    pub(crate) endpoint: Endpoint,
    pub(crate) acceptor: Arc<Acceptor>,
    pub(crate) wal: Wal,
    pub(crate) engine: Engine,
    pub(crate) server: Arc<ServerLink>,
    pub(crate) incarnations: Incarnations,
    pub(crate) task_factories: TaskFactories,
    /// The reason why the process must stop, once there is one.
    pub(crate) failure: Failure,
}

impl Node {
    /// Starts the control group, and the shards that this node held before.
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>, StartError> {
        let Parts { me, settings, founder, data_dir, endpoint, acceptor, .. } = parts;
        let Parts { wal, engine, server, incarnations, task_factories, failure, .. } = parts;
        let slow_request = parts.slow_request;
        let config = raft::config(&settings)?;
        let connections = Connections::new(&me, endpoint, acceptor, server, incarnations);
        let store = Store::open(me.id, data_dir, wal, engine, settings.log_bytes_max)?;
        let opener = GroupOpener {
            me: me.id,
            store: &store,
            connections: &connections,
            config: &config,
            log_bytes_max: settings.log_bytes_max,
            value_bytes_max: settings.value_bytes_max,
            failure: &failure,
        };
        let held_before = store.wal.groups().into_iter().filter(|id| id.is_shard());
        let mut replicas = vec![opener.prepare(GroupId::CONTROL).await?];
        for id in held_before {
            replicas.push(opener.prepare(id).await?);
        }
        // A node that could lead some group alone has no other node to ask.
        let mut is_alone = false;
        for replica in &mut replicas {
            is_alone |= replica.is_led_alone(me.id, founder).await;
        }
        let Connections { incarnations, server, .. } = &connections;
        incarnations::before_serving(incarnations, server, me.address, is_alone).await?;
        let mut replicas = replicas.into_iter();
        let control = replicas.next().ok_or(StartError::NoControlGroup)?;
        let control = Arc::new(opener.begin(control).await?);
        let mut shards = Vec::new();
        for replica in replicas {
            shards.push(Arc::new(opener.begin(replica).await?));
        }
        let node = Arc::new(Self {
            me,
            started: Instant::now(),
            counters: Arc::new(Counters::new(slow_request)),
            connections,
            store,
            replicas: Replicas::new(config, control),
            coordination: Coordination::new(settings, founder),
            tasks: NodeTasks::new(task_factories, failure),
            diagnosed: Recent::default(),
        });
        node.attend(node.control());
        // This happens whatever the directory wants by now: as long as this node is among a group's
        // voters, the group may need its vote, and no other node has its log.
        shards.sort_by_key(|shard| shard.id());
        for shard in shards {
            node.adopt_group(shard);
        }
        for outbox in node.outboxes().all() {
            let relay = (node.tasks.factories.relay)(Arc::clone(&node), outbox);
            node.tasks.guard("an outbox's task", relay);
        }
        node.find_leftovers().await?;
        node.follow_directory().await?;
        node.delete_dropped_tombstones().await;
        if founder {
            node.control().initialize(&BTreeSet::from([node.id()])).await?;
        }
        Ok(node)
    }
}
