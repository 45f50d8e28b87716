//! What a caller needs for each request: the table of rules, which is plain data.
//!
//! It follows etcd's newest rules, which are stricter than those of older versions: a caller that
//! compacts needs the role `root`, and one that grants a lease has to be a user.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::access::alarms::Effect;
use crate::access::permissions::Access;
use crate::error::EtcdError;
use crate::kv::check_txn;
use crate::proto::etcdserverpb::request_op::Request;
use crate::proto::etcdserverpb::*;
use crate::proto::{v3electionpb, v3lockpb};
use crate::recipes;

/// Who may make a request, but for its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Everybody.
    Anyone,
    /// Every user.
    User,
    /// A user with the role `root`.
    Root,
    /// One with the role `root`, or this user.
    RootOr(String),
    /// One with the role `root`, or one with this role.
    RootOrRole(String),
}

/// What a caller needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    pub(crate) caller: Caller,
    /// Ranges of keys, as requests have them.
    pub(crate) keys: Vec<(Access, Bytes, Bytes)>,
    /// Leases, all of whose keys the caller may access.
    pub(crate) leases: BTreeSet<(Access, i64)>,
}

impl Needs {
    fn only(caller: Caller) -> Self {
        Self { caller, keys: Vec::new(), leases: BTreeSet::new() }
    }

    fn key(mut self, access: Access, key: &Bytes, range_end: &Bytes) -> Self {
        self.keys.push((access, key.clone(), range_end.clone()));
        self
    }

    fn lease(mut self, access: Access, lease: i64) -> Self {
        self.leases.insert((access, lease));
        self
    }

    fn put(self, put: &PutRequest) -> Self {
        let mut needs = self.key(Access::Write, &put.key, &Bytes::new());
        // Who could not revoke a lease may not attach keys to it.
        if put.lease != 0 {
            needs = needs.lease(Access::Write, put.lease);
        }
        match put.prev_kv {
            true => needs.key(Access::Read, &put.key, &Bytes::new()),
            false => needs,
        }
    }

    fn delete(self, delete: &DeleteRangeRequest) -> Self {
        let needs = self.key(Access::Write, &delete.key, &delete.range_end);
        match delete.prev_kv {
            true => needs.key(Access::Read, &delete.key, &delete.range_end),
            false => needs,
        }
    }

    /// Adds those of a transaction and all within it.
    fn txn(mut self, txn: &TxnRequest) -> Self {
        // A loop: a caller may nest as deeply as the decoder lets it.
        let mut waiting = vec![txn];
        while let Some(txn) = waiting.pop() {
            for compare in &txn.compare {
                self = self.key(Access::Read, &compare.key, &compare.range_end);
            }
            for operation in txn.success.iter().chain(&txn.failure) {
                match &operation.request {
                    Some(Request::RequestRange(range)) => {
                        self = self.key(Access::Read, &range.key, &range.range_end);
                    }
                    Some(Request::RequestPut(put)) => self = self.put(put),
                    Some(Request::RequestDeleteRange(delete)) => self = self.delete(delete),
                    Some(Request::RequestTxn(txn)) => waiting.push(txn),
                    None => {}
                }
            }
        }
        self
    }

    /// Adds those of somebody who waits in line: for its own key, and to see the others.
    fn candidate(self, name: &[u8]) -> Self {
        let (first, end) = recipes::candidates(name);
        self.key(Access::Write, &first, &end).key(Access::Read, &first, &end)
    }
}

/// A request, of which the table says what its caller needs.
pub(crate) trait Guarded {
    /// Returns what the caller needs.
    fn needs(&self) -> Needs;

    /// Checks its size, before anything is looked up for it.
    ///
    /// # Errors
    /// It can never be executed.
    fn check(&self) -> Result<(), EtcdError> {
        Ok(())
    }

    /// Returns what it does to the keys, as far as alarms matter.
    fn effect(&self) -> Effect {
        Effect::None
    }

    /// Returns whether it is a change that is executed only once there is room for an answer, as it
    /// may show keys.
    fn needs_room_first(&self) -> bool {
        false
    }
}

macro_rules! guarded {
    ($($request:ty: $caller:expr;)*) => {
        $(impl Guarded for $request {
            fn needs(&self) -> Needs {
                Needs::only($caller)
            }
        })*
    };
}

guarded! {
    MemberListRequest: Caller::User;
    MemberAddRequest: Caller::Root;
    MemberRemoveRequest: Caller::Root;
    MemberUpdateRequest: Caller::Root;
    MemberPromoteRequest: Caller::Root;
    StatusRequest: Caller::User;
    DefragmentRequest: Caller::Root;
    HashRequest: Caller::Root;
    HashKvRequest: Caller::Root;
    SnapshotRequest: Caller::Root;
    MoveLeaderRequest: Caller::Root;
    DowngradeRequest: Caller::Root;
    AuthEnableRequest: Caller::Root;
    AuthDisableRequest: Caller::Root;
    AuthStatusRequest: Caller::Anyone;
    AuthenticateRequest: Caller::Anyone;
    AuthUserAddRequest: Caller::Root;
    AuthUserListRequest: Caller::Root;
    AuthUserDeleteRequest: Caller::Root;
    AuthUserChangePasswordRequest: Caller::Root;
    AuthUserGrantRoleRequest: Caller::Root;
    AuthUserRevokeRoleRequest: Caller::Root;
    AuthRoleAddRequest: Caller::Root;
    AuthRoleListRequest: Caller::Root;
    AuthRoleDeleteRequest: Caller::Root;
    AuthRoleGrantPermissionRequest: Caller::Root;
    AuthRoleRevokePermissionRequest: Caller::Root;
}

impl Guarded for AuthUserGetRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::RootOr(self.name.clone()))
    }
}

impl Guarded for AuthRoleGetRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::RootOrRole(self.role.clone()))
    }
}

impl Guarded for AlarmRequest {
    fn needs(&self) -> Needs {
        let asks = self.action == i32::from(alarm_request::AlarmAction::Get);
        Needs::only(if asks { Caller::User } else { Caller::Root })
    }
}

impl Guarded for CompactionRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::Root)
    }

    fn effect(&self) -> Effect {
        Effect::UsesKeys
    }
}

impl Guarded for LeaseGrantRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User)
    }

    fn effect(&self) -> Effect {
        Effect::TakesSpace
    }
}

impl Guarded for RangeRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).key(Access::Read, &self.key, &self.range_end)
    }

    fn effect(&self) -> Effect {
        Effect::UsesKeys
    }
}

impl Guarded for PutRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).put(self)
    }

    fn effect(&self) -> Effect {
        Effect::TakesSpace
    }

    fn needs_room_first(&self) -> bool {
        self.prev_kv
    }
}

impl Guarded for DeleteRangeRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).delete(self)
    }

    fn effect(&self) -> Effect {
        Effect::UsesKeys
    }

    fn needs_room_first(&self) -> bool {
        true
    }
}

/// Returns whether a transaction, or one within it, has a put.
fn puts(txn: &TxnRequest) -> bool {
    let mut waiting = vec![txn];
    while let Some(txn) = waiting.pop() {
        for operation in txn.success.iter().chain(&txn.failure) {
            match &operation.request {
                Some(Request::RequestPut(_)) => return true,
                Some(Request::RequestTxn(txn)) => waiting.push(txn),
                _ => {}
            }
        }
    }
    false
}

impl Guarded for TxnRequest {
    fn check(&self) -> Result<(), EtcdError> {
        check_txn(self)
    }

    fn needs(&self) -> Needs {
        Needs::only(Caller::User).txn(self)
    }

    fn effect(&self) -> Effect {
        if puts(self) { Effect::TakesSpace } else { Effect::UsesKeys }
    }

    fn needs_room_first(&self) -> bool {
        true
    }
}

impl Guarded for WatchCreateRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).key(Access::Read, &self.key, &self.range_end)
    }
}

impl Guarded for LeaseRevokeRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).lease(Access::Write, self.id)
    }

    fn effect(&self) -> Effect {
        Effect::UsesKeys
    }
}

impl Guarded for LeaseKeepAliveRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).lease(Access::Write, self.id)
    }
}

impl Guarded for LeaseTimeToLiveRequest {
    fn needs(&self) -> Needs {
        match self.keys {
            true => Needs::only(Caller::User).lease(Access::Read, self.id),
            false => Needs::only(Caller::User),
        }
    }
}

impl Guarded for LeaseLeasesRequest {
    /// A caller that sees all leases needs all keys: each lease may have any.
    fn needs(&self) -> Needs {
        let zero = Bytes::from_static(&[0]);
        Needs::only(Caller::User).key(Access::Read, &zero, &zero)
    }
}

impl Guarded for v3lockpb::LockRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).lease_of(self.lease).candidate(&self.name)
    }

    fn effect(&self) -> Effect {
        Effect::TakesSpace
    }
}

impl Guarded for v3lockpb::UnlockRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).key(Access::Write, &self.key, &Bytes::new())
    }

    fn effect(&self) -> Effect {
        Effect::UsesKeys
    }
}

impl Guarded for v3electionpb::CampaignRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).lease_of(self.lease).candidate(&self.name)
    }

    fn effect(&self) -> Effect {
        Effect::TakesSpace
    }
}

impl Guarded for v3electionpb::LeaderRequest {
    fn needs(&self) -> Needs {
        let (first, end) = recipes::candidates(&self.name);
        Needs::only(Caller::User).key(Access::Read, &first, &end)
    }
}

impl Guarded for v3electionpb::ProclaimRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).leader(self.leader.as_ref())
    }

    fn effect(&self) -> Effect {
        Effect::TakesSpace
    }
}

impl Guarded for v3electionpb::ResignRequest {
    fn needs(&self) -> Needs {
        Needs::only(Caller::User).leader(self.leader.as_ref())
    }

    fn effect(&self) -> Effect {
        Effect::UsesKeys
    }
}

impl Needs {
    fn lease_of(self, lease: i64) -> Self {
        if lease == 0 { self } else { self.lease(Access::Write, lease) }
    }

    /// Adds those of a leader for its own key.
    fn leader(self, leader: Option<&v3electionpb::LeaderKey>) -> Self {
        let Some(leader) = leader else { return self };
        let none = Bytes::new();
        self.lease_of(leader.lease).key(Access::Write, &leader.key, &none).key(
            Access::Read,
            &leader.key,
            &none,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_branches_of_a_transaction_count_at_every_depth() {
        let put = |key: &'static str, prev_kv| RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.into(),
                prev_kv,
                ..PutRequest::default()
            })),
        };
        let compare = Compare { key: "c".into(), range_end: "d".into(), ..Compare::default() };
        let inner = TxnRequest {
            compare: vec![compare],
            success: vec![],
            failure: vec![put("deep", true)],
        };
        let outer = TxnRequest {
            compare: vec![],
            success: vec![
                put("yes", false),
                RequestOp { request: Some(Request::RequestTxn(inner)) },
            ],
            failure: vec![put("no", false)],
        };
        let mut keys: Vec<_> = outer.needs().keys;
        keys.sort_by_key(|(access, key, _)| (key.clone(), *access == Access::Write));
        let key = |access, key: &'static str, end: &'static str| (access, key.into(), end.into());
        assert_eq!(
            keys,
            [
                key(Access::Read, "c", "d"),
                key(Access::Read, "deep", ""),
                key(Access::Write, "deep", ""),
                key(Access::Write, "no", ""),
                key(Access::Write, "yes", ""),
            ]
        );
    }

    #[test]
    fn changes_that_show_keys_need_room_before_they_are_executed() {
        let put = |prev_kv| PutRequest { prev_kv, ..PutRequest::default() };
        assert!(put(true).needs_room_first() && !put(false).needs_room_first());
        assert!(TxnRequest::default().needs_room_first());
        assert!(DeleteRangeRequest::default().needs_room_first());
        assert!(!RangeRequest::default().needs_room_first(), "it changes nothing");
    }

    #[test]
    fn a_put_with_a_lease_needs_the_keys_of_the_lease() {
        let put = PutRequest { key: "a".into(), lease: 7, ..PutRequest::default() };
        assert_eq!(put.needs().leases, BTreeSet::from([(Access::Write, 7)]));
    }

    #[test]
    fn alarms_are_shown_to_users_and_set_by_root() {
        assert_eq!(AlarmRequest::default().needs().caller, Caller::User);
        let sets = AlarmRequest { action: 1, ..AlarmRequest::default() };
        assert_eq!(sets.needs().caller, Caller::Root);
    }

    #[test]
    fn a_candidate_needs_the_keys_of_all_candidates() {
        let lock = v3lockpb::LockRequest { name: "l".into(), lease: 0 };
        let needs = lock.needs();
        assert_eq!(needs.keys[0], (Access::Write, "l/".into(), "l0".into()));
        assert!(needs.leases.is_empty());
    }
}
