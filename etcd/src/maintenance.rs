//! The service Maintenance.

use bytes::Bytes;
use dkv_api::{Client, GroupId, GroupRole, GroupStatus, NodeId, NodeStatus};
use futures::FutureExt;
use xxhash_rust::xxh3::Xxh3;

use crate::access::alarms::Alarm;
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
        let raised = self.rules().await.map(|rules| rules.state.alarms.of(None));
        for (member, alarm) in raised.unwrap_or_default() {
            let alarm = if alarm == Alarm::NoSpace { "NOSPACE" } else { "CORRUPT" };
            status.errors.push(format!("memberID:{member} alarm:{alarm} "));
        }
        status.header = Some(header);
        Ok(status)
    }

    /// Lists, raises and disarms alarms. The one that the network raises by itself is that of a
    /// quota that is reached; it ends by itself once there is room.
    ///
    /// # Errors
    /// There is no leader, or too many alarms stand.
    pub async fn alarm(
        &self,
        context: &Context,
        request: AlarmRequest,
    ) -> Result<AlarmResponse, EtcdError> {
        let (member, kind) = (request.member_id, request.alarm());
        let alarm = match kind {
            AlarmType::None => None,
            AlarmType::Nospace => Some(Alarm::NoSpace),
            AlarmType::Corrupt => Some(Alarm::Corrupt),
        };
        let shown = match (request.action(), alarm) {
            (AlarmAction::Get, _) => {
                let mut shown = self.latest_rules().await?.state.alarms.of(alarm);
                if alarm != Some(Alarm::Corrupt) {
                    let leader = self.primary().await?.filter(|leader| leader.is_over_quota());
                    shown.extend(leader.map(|it| (member_id(it.node), Alarm::NoSpace)));
                }
                shown
            }
            // As etcd: nothing is raised or disarmed, and that is no error.
            (_, None) => Vec::new(),
            (AlarmAction::Activate, Some(alarm)) => {
                let what = format!("raise the alarm {alarm:?} of member {member:x}");
                let act = self.act(context, &what);
                let raised = self.change_shared(|shared| shared.alarms.raise(member, alarm));
                act.settled(raised.await)?;
                vec![(member, alarm)]
            }
            (AlarmAction::Deactivate, Some(alarm)) => {
                let what = format!("disarm the alarm {alarm:?} of member {member:x}");
                let act = self.act(context, &what);
                let mut stood = false;
                let disarmed = self.change_shared(|shared| {
                    stood = shared.alarms.disarm(member, alarm);
                    Ok(stood)
                });
                act.settled(disarmed.await)?;
                if stood { vec![(member, alarm)] } else { Vec::new() }
            }
        };
        let message = |(member_id, alarm)| AlarmMember {
            member_id,
            alarm: match alarm {
                Alarm::NoSpace => AlarmType::Nospace.into(),
                Alarm::Corrupt => AlarmType::Corrupt.into(),
            },
        };
        let alarms = shown.into_iter().map(message).collect();
        Ok(AlarmResponse { header: self.known_header().await.ok(), alarms })
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
            // As etcd: one that was never compacted has none.
            compact_revision: self.compacted().await?.map_or(-1, etcd_revision),
            hash_revision: etcd_revision(at.unwrap_or(moment.latest)),
        })
    }

    /// Makes a member the leader, with an administrator's rights. The network may move it again
    /// later, to spread leaders over its nodes.
    ///
    /// # Errors
    /// The target is no member, or has no vote; it does not take over in time; this face has no
    /// such rights.
    pub async fn move_leader(
        &self,
        context: &Context,
        request: MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, EtcdError> {
        let leader = self.primary().await?.ok_or(EtcdError::NO_LEADER)?;
        if member_id(leader.node) == request.target_id {
            let header = Some(self.known_header().await?);
            return Ok(MoveLeaderResponse { header });
        }
        let view = self.client().view().await.map_err(|error| self.failed(error))?;
        let target = view.nodes.iter().find(|node| member_id(node.id) == request.target_id);
        let to = target.ok_or(EtcdError::BAD_LEADER_TRANSFEREE)?.id;
        let shards = view.shards_of(self.store().await?.keyspace_id());
        if !shards.iter().all(|shard| shard.voters.contains(&to)) {
            return Err(EtcdError::BAD_LEADER_TRANSFEREE);
        }
        let act = self.act(context, &format!("make {to} the leader"));
        let moving =
            |client: Client| async move { client.move_primary(leader.shard, to).await }.boxed();
        let moved = act.settled(self.as_administrator(moving).await);
        moved.map_err(|error| match error {
            dkv_api::Error::Unknown(_) => EtcdError::TIMEOUT_LEADER_TRANSFER,
            why => {
                EtcdError::new(Code::FailedPrecondition, format!("etcdserver: not moved: {why}"))
            }
        })?;
        Ok(MoveLeaderResponse { header: self.known_header().await.ok() })
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
            _ if !is_version(&request.version) => Err(EtcdError::WRONG_DOWNGRADE_VERSION_FORMAT),
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
            if leader.replica().is_some_and(|replica| leads(replica, node)) {
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

/// Returns whether a node leads the group of its replica. One that hears no majority of the voters
/// may be cut off from those who have elected another.
fn leads(replica: &GroupStatus, node: NodeId) -> bool {
    replica.leader == Some(node) && replica.role == GroupRole::Leader && replica.has_leader()
}

/// Returns whether a text is a version, such as `3.5` or `3.5.0`.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|it| it.is_ascii_digit());
    matches!(text.split('.').count(), 2 | 3) && text.split('.').all(is_number)
}

/// etcd's hashes have 32 bits.
fn short_hash(hash: u64) -> u32 {
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use dkv_api::{GroupId, GroupRole, GroupStatus, NodeId, Revision, Term};

    use super::{is_version, leads};

    #[test]
    fn one_that_hears_no_majority_leads_nobody() {
        let [one, other] = [(); 2].map(|()| NodeId::random());
        let mut replica = GroupStatus {
            group: GroupId(1),
            role: GroupRole::Leader,
            term: Term(3),
            leader: Some(one),
            voters: vec![one],
            halves: Vec::new(),
            learners: Vec::new(),
            last_index: 7,
            applied_index: 7,
            checkpoint_index: 0,
            purged_index: 0,
            keys: 0,
            bytes: 0,
            revision: Revision(4),
            state_hash: 0,
            replicas: Vec::new(),
        };
        assert!(leads(&replica, one) && !leads(&replica, other));
        replica.voters.push(other);
        assert!(!leads(&replica, one), "it hears nobody, and believes in itself");
        replica.voters.pop();
        replica.role = GroupRole::Follower;
        assert!(!leads(&replica, one), "it has a leader, and that is another");
    }

    #[test]
    fn versions_have_two_or_three_numbers() {
        assert!(["3.5", "3.5.0", "10.20.30"].into_iter().all(is_version));
        assert!(!["", "3", "3.", "3.5.0.1", "v3.5", "3.x"].into_iter().any(is_version));
    }
}
