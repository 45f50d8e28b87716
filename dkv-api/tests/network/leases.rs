//! Leases in a network that misbehaves.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::fake::{Act, Fake};
use dkv_api::{Error, GroupId, LeaseId, Revision};
use dkv_wire::codec::decode;
use dkv_wire::message::{Answer, Command, LeaseAction, Receipt, Refusal, RequestBody};

const TTL: Duration = Duration::from_secs(10);
const LEASE: LeaseId = LeaseId(7);

/// The changes of leases that arrived.
type Arrived = Arc<Mutex<Vec<(GroupId, LeaseAction)>>>;

/// Does what `act` says with each change of a lease.
fn leases(
    fake: &Fake,
    mut act: impl FnMut(GroupId, LeaseAction) -> Act + Send + 'static,
) -> Arrived {
    let arrived = Arrived::default();
    let seen = arrived.clone();
    fake.nodes[0].script(move |body| {
        let RequestBody::Propose { shard, command, .. } = body else { return Act::Serve };
        let Ok(Command::Lease(change)) = decode(command) else { return Act::Serve };
        seen.lock().unwrap().push((*shard, change.action));
        act(*shard, change.action)
    });
    arrived
}

fn receipt(fake: &Fake, shard: GroupId, revision: u64) -> Receipt {
    Receipt {
        shard,
        revision: Revision(revision),
        level: dkv_api::Level::Strong,
        node: fake.nodes[0].id,
        term: dkv_api::Term(1),
        staleness_ms: Some(0),
        stamp: Default::default(),
        pending: None,
    }
}

fn is_grant(action: LeaseAction) -> bool {
    matches!(action, LeaseAction::Grant { .. })
}

#[tokio::test]
async fn a_grant_whose_outcome_is_unknown_is_not_revoked() {
    let fake = Fake::start(1).await;
    let client = fake.builder().timeout(Duration::from_millis(500)).connect().await.unwrap();
    let granted = Answer::Granted(receipt(&fake, GroupId(1), 1));
    let arrived = leases(&fake, move |shard, _| match shard {
        GroupId(1) => Act::Answer(granted.clone()),
        _ => Act::Ignore,
    });
    let outcome = client.grant_lease_as(LEASE, TTL).await;
    assert!(matches!(outcome, Err(Error::Unknown(_))), "{outcome:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let arrived = arrived.lock().unwrap();
    assert!(arrived.iter().all(|(_, action)| is_grant(*action)), "{arrived:?}");
}

#[tokio::test]
async fn a_grant_that_a_shard_refuses_is_revoked_before_the_caller_knows() {
    let fake = Fake::start(1).await;
    let client = fake.builder().connect().await.unwrap();
    let first = receipt(&fake, GroupId(1), 1);
    let arrived = leases(&fake, move |shard, action| match (shard, is_grant(action)) {
        (GroupId(1), true) => Act::Answer(Answer::Granted(first)),
        (GroupId(1), false) => Act::Answer(Answer::Revoked { receipt: first, deleted: 0, left: 0 }),
        _ => Act::Refuse(Refusal::LeaseExists { lease: LEASE }),
    });
    let outcome = client.grant_lease_as(LEASE, TTL).await;
    assert!(matches!(outcome, Err(Error::LeaseExists { .. })), "{outcome:?}");
    let arrived = arrived.lock().unwrap();
    let revoked: Vec<_> = arrived.iter().filter(|(_, action)| !is_grant(*action)).collect();
    assert_eq!(revoked, [&(GroupId(1), LeaseAction::Revoke)]);
}

#[tokio::test]
async fn the_first_part_of_a_revocation_decides() {
    let fake = Fake::start(1).await;
    let client = fake.builder().timeout(Duration::from_millis(500)).connect().await.unwrap();
    let last = receipt(&fake, GroupId(1), 9);
    let mut first = true;
    leases(&fake, move |shard, _| match shard {
        GroupId(1) if std::mem::take(&mut first) => {
            Act::Answer(Answer::Revoked { receipt: last, deleted: 1024, left: 1 })
        }
        // The lease has ended by now, whatever becomes of this.
        GroupId(1) => Act::Ignore,
        _ => Act::Refuse(Refusal::NoLease { lease: LEASE }),
    });
    let revoked = client.revoke_lease_with_receipts(LEASE).await;
    assert_eq!(revoked, Ok((1024, vec![last])));
}

#[tokio::test]
async fn a_revocation_of_which_a_part_is_done_is_not_called_undone() {
    let fake = Fake::start(1).await;
    let client = fake.builder().timeout(Duration::from_millis(500)).connect().await.unwrap();
    let done = Answer::Revoked { receipt: receipt(&fake, GroupId(1), 9), deleted: 3, left: 0 };
    let busy = Refusal::Unavailable("no quorum".into());
    leases(&fake, move |shard, _| match shard {
        GroupId(1) => Act::Answer(done.clone()),
        _ => Act::Refuse(busy.clone()),
    });
    match client.revoke_lease(LEASE).await {
        Err(Error::Unknown(why)) => assert!(why.contains("with 3 keys"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_lease_that_may_have_been_granted_is_told_and_revoked() {
    let fake = Fake::start(1).await;
    let client = fake.builder().timeout(Duration::from_millis(500)).connect().await.unwrap();
    let (revoked, mut told) = tokio::sync::mpsc::unbounded_channel();
    leases(&fake, move |_, action| {
        if !is_grant(action) {
            revoked.send(()).unwrap();
        }
        Act::Ignore
    });
    match client.grant_lease(TTL).await {
        Err(Error::Unknown(why)) => assert!(why.contains("may exist"), "{why}"),
        other => panic!("{other:?}"),
    }
    told.recv().await.unwrap();
}
