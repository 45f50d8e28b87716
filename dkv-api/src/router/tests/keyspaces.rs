//! Keyspaces that come and go in the views of nodes that know more or less.

use std::time::Duration;

use bytes::Bytes;
use dkv_base::id::{GroupId, KeyspaceId, NetworkId, NodeId, Revision, SessionId, Term};
use dkv_wire::message::{Level, ReadBounds, Refusal, Reply};
use dkv_wire::network::{NetworkView, NodeInfo, NodeState, Settings, ShardInfo};
use uuid::Uuid;

use crate::error::Error;
use crate::router::{Effect, RequestKind, Router};

const NODE: NodeId = NodeId(Uuid::from_u128(1));
const MINUTE: Duration = Duration::from_secs(60);
const OTHER: KeyspaceId = KeyspaceId(1);

/// A view that shows the directory at a revision, with these keyspaces of one shard each.
fn view(revision: u64, keyspaces: &[u32]) -> NetworkView {
    let node = NodeInfo {
        id: NODE,
        name: "n1".into(),
        address: ([127, 0, 0, 1], 1).into(),
        region: None,
        state: NodeState::Live,
    };
    let shard = |id: &u32| ShardInfo {
        group: GroupId(id + 1),
        keyspace: KeyspaceId(*id),
        first_hash: 0,
        primary: Some(NODE),
        voters: vec![NODE],
        learners: Vec::new(),
    };
    NetworkView {
        network: NetworkId::default(),
        term: Term(1),
        coordinator: Some(NODE),
        nodes: vec![node],
        revision: Revision(revision),
        keyspaces: Vec::new(),
        shards: keyspaces.iter().map(shard).collect(),
        settings: Settings::default(),
        denied: Vec::new(),
        servers: Vec::new(),
    }
}

struct Script {
    router: Router<u32>,
    ended: Vec<(u32, Error)>,
    sent: Vec<(u64, u64)>,
}

impl Script {
    fn new(view: NetworkView) -> Self {
        let router = Router::new(SessionId(Uuid::from_u128(9)), None);
        let mut script = Self { router, ended: Vec::new(), sent: Vec::new() };
        script.router.handle_view(Duration::ZERO, view);
        script.drain();
        script
    }

    fn see(&mut self, view: NetworkView) {
        self.router.handle_view(Duration::ZERO, view);
        self.drain();
    }

    fn read(&mut self, who: u32, keyspace: KeyspaceId) {
        let (key, bounds) = (Bytes::from("k"), ReadBounds::default());
        let kind = RequestKind::Read { key, level: Level::Strong, bounds, nearest: false };
        self.router.submit_in(keyspace, None, Duration::ZERO, kind, MINUTE, Some(who));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(effect) = self.router.poll_effect() {
            match effect {
                Effect::Connect { node, generation, .. } => {
                    let (now, near) = (Duration::ZERO, Duration::from_millis(1));
                    self.router.connected(now, node, generation, near);
                }
                Effect::Send(outgoing) => self.sent.push((outgoing.id, outgoing.generation)),
                Effect::Finish { waiter, outcome } => {
                    self.ended.push((waiter, outcome.expect_err("nobody answers")));
                }
                _ => {}
            }
        }
    }

    fn ended(&mut self) -> Vec<u32> {
        let ended = std::mem::take(&mut self.ended);
        let is_gone = |error: &Error| matches!(error, Error::NoKeyspace { .. });
        assert!(ended.iter().all(|(_, error)| is_gone(error)), "{ended:?}");
        ended.into_iter().map(|(who, _)| who).collect()
    }
}

#[test]
fn a_transaction_of_ranges_alone_goes_to_its_own_keyspace() {
    let mut script = Script::new(view(5, &[0, 1]));
    let kind = RequestKind::Transact {
        keys: Vec::new(),
        ranges: true,
        shards: Vec::new(),
        body: Bytes::from_static(b"body"),
        write_id: None,
        after: Default::default(),
    };
    let id = script.router.submit_in(OTHER, None, Duration::ZERO, kind, MINUTE, Some(1));
    assert_eq!(script.router.requests[&id].group, Some(GroupId(2)));
}

#[test]
fn requests_about_a_dropped_keyspace_end_at_once_and_no_others() {
    let mut script = Script::new(view(5, &[0, 1]));
    script.read(1, OTHER);
    script.read(2, KeyspaceId::DEFAULT);
    assert_eq!(script.ended(), []);
    script.see(view(6, &[0]));
    assert_eq!(script.ended(), [1]);
    script.read(3, OTHER);
    assert_eq!(script.ended(), [3]);
    script.read(4, KeyspaceId::DEFAULT);
    assert_eq!(script.ended(), []);
}

#[test]
fn a_view_of_an_older_directory_takes_no_keyspace_away_and_brings_none_back() {
    let mut script = Script::new(view(5, &[0, 1]));
    script.see(view(4, &[0]));
    script.read(1, OTHER);
    assert_eq!(script.ended(), []);
    script.see(view(7, &[0]));
    assert_eq!(script.ended(), [1]);
    script.see(view(6, &[0, 1]));
    script.read(2, OTHER);
    assert_eq!(script.ended(), [2]);
    // A node cannot rule out all later views with a leap.
    script.router.handle_node_view(Duration::ZERO, NODE, view(u64::MAX, &[0, 1]));
    script.drain();
    script.read(3, OTHER);
    assert_eq!(script.ended(), [3]);
}

#[test]
fn a_node_that_knows_of_the_drop_ends_the_request() {
    let mut script = Script::new(view(5, &[0, 1]));
    script.read(1, OTHER);
    let (id, generation) = *script.sent.last().unwrap();
    let reply = Reply { id, result: Err(Refusal::Dropped { shard: GroupId(2) }) };
    script.router.handle_reply(Duration::ZERO, NODE, generation, reply);
    script.drain();
    assert_eq!(script.ended(), [1]);
}
