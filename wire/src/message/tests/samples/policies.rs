//! Samples of messages about policies.

use bytes::Bytes;
use dkv_base::id::KeyspaceId;

use crate::message::*;
use crate::user::User;

fn user() -> User {
    "alice".parse().unwrap()
}

fn limits() -> PolicyLimits {
    PolicyLimits { requests: Some(100), bytes: Some(1 << 20), connections: None }
}

pub(super) fn refusals() -> Vec<Refusal> {
    vec![Refusal::Limited { limit: LimitKind::Bytes, retry_after_ms: 250 }]
}

fn rule() -> PolicyRule {
    let rights = [Right::Read, Right::Watch].into_iter().collect();
    PolicyRule { keyspace: Some(KeyspaceId(3)), prefix: Bytes::from_static(b"billing/"), rights }
}

pub(super) fn requests() -> Vec<RequestBody> {
    let acts = [
        PolicyAct::Create(vec![rule()]),
        PolicyAct::Set(PolicyRule { keyspace: None, ..rule() }),
        PolicyAct::Drop,
        PolicyAct::Grant(user()),
        PolicyAct::Revoke(user()),
        PolicyAct::Limit(limits()),
    ];
    let change = |act| RequestBody::ChangePolicy(PolicyChange { policy: "billing".into(), act });
    [RequestBody::Policies].into_iter().chain(acts.map(change)).collect()
}

pub(super) fn answers() -> Vec<Answer> {
    let (rules, users, limits) = (vec![rule()], vec![user()], limits());
    let policy = PolicyInfo { name: "billing".into(), rules, users, limits };
    let list = PolicyList { user: Some(user()), policies: vec![policy] };
    vec![Answer::Policies(Box::new(list))]
}
