//! The service Maintenance.

use bytes::Bytes;
use dkv_api::{GroupId, GroupStatus, NodeId, NodeStatus};
use xxhash_rust::xxh3::Xxh3;

use crate::context::Context;
use crate::error::{Code, EtcdError};
use crate::etcd::{Etcd, etcd_revision};
use crate::identity::member_id;
use crate::kv::pages::Pages;
use crate::kv::plan::RangePlan;
use crate::proto::etcdserverpb::alarm_request::AlarmAction;
use crate::proto::etcdserverpb::downgrade_request::DowngradeAction;
use crate::proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, RangeRequest, StatusRequest,
    StatusResponse,
};

/// The version of etcd whose interface this is. Kubernetes asks for progress of watches only from
/// 3.5.13 on.
pub(crate) const VERSION: &str = "3.6.8";
/// The version of the cluster, and of what is stored.
pub(crate) const CLUSTER_VERSION: &str = "3.6.0";

impl Etcd {
    /// Returns the status of the keyspace, by its leader.
    ///
    /// # Errors
    /// The keyspace does not exist. That it has no leader is part of the status.
    pub async fn status(&self, _: &Context, _: StatusRequest) -> Result<StatusResponse, EtcdError> {
        let mut status = StatusResponse {
            version: VERSION.to_owned(),
            storage_version: CLUSTER_VERSION.to_owned(),
            downgrade_info: Some(DowngradeInfo::default()),
            ..StatusResponse::default()
        };
        let Some(leader) = self.primary().await? else {
            status.header = Some(self.known_header().await?);
            status.errors.push(EtcdError::NO_LEADER.message().to_owned());
            return Ok(status);
        };
        let Some(replica) = leader.replica() else {
            status.header = Some(self.known_header().await?);
            status.errors.push(EtcdError::NO_LEADER.message().to_owned());
            return Ok(status);
        };
        let header = self.status_header(leader.node, replica.term, replica.revision);
        status.leader = member_id(leader.node);
        status.raft_index = replica.last_index;
        status.raft_applied_index = replica.applied_index;
        status.raft_term = header.raft_term;
        // etcd's is never empty, and dashboards divide by it.
        status.db_size = i64::try_from(replica.bytes.max(1)).unwrap_or(i64::MAX);
        status.db_size_in_use = status.db_size;
        status.db_size_quota = leader.quota_bytes.map_or(0, |quota| quota as i64);
        if leader.is_over_quota() {
            let id = member_id(leader.node);
            status.errors.push(format!("memberID:{id} alarm:NOSPACE "));
        }
        status.header = Some(header);
        Ok(status)
    }

    /// Lists the alarms. The only one is that of a quota that is reached, which ends by itself once
    /// there is room.
    ///
    /// # Errors
    /// The caller wants to raise one.
    pub async fn alarm(
        &self,
        _: &Context,
        request: AlarmRequest,
    ) -> Result<AlarmResponse, EtcdError> {
        if request.action() == AlarmAction::Activate {
            let why = "etcdserver: alarms are raised by the network alone";
            return Err(EtcdError::new(Code::FailedPrecondition, why));
        }
        let leader = self.primary().await?;
        let wanted = matches!(request.alarm(), AlarmType::None | AlarmType::Nospace);
        let raised = leader.filter(|leader| wanted && leader.is_over_quota());
        // One that stands cannot be disarmed, so disarming it is answered with none.
        let shown = raised.filter(|_| request.action() == AlarmAction::Get);
        let alarms = shown.map(|leader| AlarmMember {
            member_id: member_id(leader.node),
            alarm: AlarmType::Nospace as i32,
        });
        let alarms = alarms.into_iter().collect();
        Ok(AlarmResponse { header: Some(self.known_header().await?), alarms })
    }

    /// Does nothing: there is nothing to defragment.
    ///
    /// # Errors
    /// None.
    pub async fn defragment(
        &self,
        _: &Context,
        _: DefragmentRequest,
    ) -> Result<DefragmentResponse, EtcdError> {
        Ok(DefragmentResponse::default())
    }

    /// Returns the hash of the leader's state, which is equal on all replicas at an equal index.
    ///
    /// # Errors
    /// There is no leader.
    pub async fn hash(&self, _: &Context, _: HashRequest) -> Result<HashResponse, EtcdError> {
        let leader = self.primary().await?.ok_or(EtcdError::NO_LEADER)?;
        let replica = leader.replica().ok_or(EtcdError::NO_LEADER)?;
        let header = self.status_header(leader.node, replica.term, replica.revision);
        Ok(HashResponse { header: Some(header), hash: short_hash(replica.state_hash) })
    }

    /// Returns a hash of all keys as of a revision. It differs from etcd's, and is equal for all
    /// faces of the keyspace.
    ///
    /// # Errors
    /// The revision is compacted or not there yet.
    pub async fn hash_kv(
        &self,
        _: &Context,
        request: HashKvRequest,
    ) -> Result<HashKvResponse, EtcdError> {
        let everything = Bytes::from_static(&[0]);
        let all = RangeRequest {
            key: everything.clone(),
            range_end: everything,
            revision: request.revision,
            ..RangeRequest::default()
        };
        let plan = RangePlan::new(&all)?;
        let store = self.store().await?;
        let failed = |error| self.failed(error);
        let at = plan.at;
        let (mut pages, moment) = Pages::open(store, plan, usize::MAX).await.map_err(failed)?;
        let mut hash = Xxh3::new();
        while let Some(page) = pages.next().await.map_err(failed)? {
            for key in page.keys {
                for bytes in [&key.key, &key.value] {
                    hash.update(&(bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
                for number in [key.create_revision, key.mod_revision, key.version, key.lease] {
                    hash.update(&number.to_le_bytes());
                }
            }
        }
        Ok(HashKvResponse {
            header: Some(self.header(&moment.receipt, moment.latest)),
            hash: short_hash(hash.digest()),
            compact_revision: 0,
            hash_revision: etcd_revision(at.unwrap_or(moment.latest)),
        })
    }

    /// Accepts the leader that there is, and refuses another one: the network places leaders.
    ///
    /// # Errors
    /// The target is no member, or not the leader.
    pub async fn move_leader(
        &self,
        _: &Context,
        request: MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, EtcdError> {
        let leader = self.primary().await?.ok_or(EtcdError::NO_LEADER)?;
        if member_id(leader.node) == request.target_id {
            let header = Some(self.known_header().await?);
            return Ok(MoveLeaderResponse { header });
        }
        let view = self.client().view().await.map_err(|error| self.failed(error))?;
        if view.nodes.iter().all(|node| member_id(node.id) != request.target_id) {
            return Err(EtcdError::BAD_LEADER_TRANSFEREE);
        }
        let why = "etcdserver: the network places leaders by itself; dkv SERVER rebalance spreads \
                   them, and draining a node moves those that it has";
        Err(EtcdError::new(Code::FailedPrecondition, why))
    }

    /// Refuses: there is no older version to go to.
    ///
    /// # Errors
    /// Always.
    pub async fn downgrade(
        &self,
        _: &Context,
        request: DowngradeRequest,
    ) -> Result<DowngradeResponse, EtcdError> {
        match request.action() {
            DowngradeAction::Cancel => Err(EtcdError::NO_INFLIGHT_DOWNGRADE),
            _ => Err(EtcdError::INVALID_DOWNGRADE_TARGET_VERSION),
        }
    }

    /// Asks the leader of the keyspace for its status; `None` if there is none that answers.
    async fn primary(&self) -> Result<Option<Leader>, EtcdError> {
        let store = self.store().await?;
        let view = store.view().await.map_err(|error| self.failed(error))?;
        let keyspace = view.keyspace(store.keyspace_id());
        let quota_bytes = keyspace.and_then(|keyspace| keyspace.settings.quota_bytes);
        let Some(shard) = view.shards_of(store.keyspace_id()).first() else {
            return Ok(None);
        };
        // The view may not know of the latest election; a voter may.
        let mut candidates: Vec<NodeId> = shard.primary.into_iter().collect();
        candidates.extend(&shard.voters);
        for node in candidates {
            let Ok(status) = store.node_status(node).await else { continue };
            let leader = Leader { node, shard: shard.group, status, quota_bytes };
            if leader.replica().is_some_and(|replica| replica.leader == Some(node)) {
                return Ok(Some(leader));
            }
        }
        Ok(None)
    }
}

/// The leader of the keyspace.
struct Leader {
    node: NodeId,
    shard: GroupId,
    status: NodeStatus,
    quota_bytes: Option<u64>,
}

impl Leader {
    fn replica(&self) -> Option<&GroupStatus> {
        self.status.groups.iter().find(|group| group.group == self.shard)
    }

    fn is_over_quota(&self) -> bool {
        let bytes = self.replica().map_or(0, |replica| replica.bytes);
        self.quota_bytes.is_some_and(|quota| bytes >= quota)
    }
}

/// etcd's hashes have 32 bits.
fn short_hash(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}
