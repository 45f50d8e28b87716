//! Users who may do nothing, and tokens that are not used.

use bytes::Bytes;
use dkv_api::{KeyRange, Role};
use dkv_base::id::{Serial, SessionId};
use dkv_test_support::{output, text};
use dkv_wire::codec::encode;
use dkv_wire::message::{
    Command, RangeOptions, ReadMode, Refusal, RequestBody, Transact, Transaction,
};
use serde_json::json;

use super::{SHARD, ask, direct, rule, token, user};
use crate::harness::Network;

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_a_policy_writes_to_no_log_and_learns_no_revision() {
    let network = Network::with(json!({"shards": 1, "replication": 1}), 1).await;
    let alice = direct(&network, Role::Client, "alice").await;
    let connection = alice.to_node(network.nodes[0].address()).await.unwrap();
    let session = SessionId::random();
    let (serial, settled, after) = (Serial(1), Serial(1), Default::default());
    let body = encode(&Transaction::default());
    let empty = Command::Transact(Transact { session, serial, settled, after, body: &body });
    let propose = |command: &Command<'_>| RequestBody::Propose {
        shard: SHARD,
        everywhere: false,
        command: encode(command),
    };
    let range = RequestBody::Range {
        shard: SHARD,
        keys: KeyRange::Range("b".into(), "a".into()),
        after: Bytes::new(),
        options: RangeOptions::default(),
        bytes_max: 1000,
        count: true,
        mode: ReadMode::Primary,
    };
    let requests = [propose(&Command::OpenSession(session)), propose(&empty), range];
    let applied = network.status_of(0).await.groups[1].last_index;
    for body in &requests {
        let answer = ask(&connection, body.clone(), true).await;
        assert!(matches!(answer, Err(Refusal::Denied(_))), "{body:?}: {answer:?}");
    }
    assert_eq!(network.status_of(0).await.groups[1].last_index, applied);
    // Any right will do.
    let admin = network.admin().await;
    admin.create_policy("p", vec![rule("a/", "read")]).await.unwrap();
    admin.grant_policy("p", user("alice")).await.unwrap();
    for body in &requests {
        let answer = ask(&connection, body.clone(), true).await;
        assert!(answer.is_ok(), "{body:?}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_names_a_user_and_is_not_used_is_said_to_be() {
    let network = Network::with(json!({"shards": 1, "replication": 1}), 1).await;
    let file = network.path("alice.token");
    std::fs::write(&file, token(&network, Role::Client, "alice").await).unwrap();
    let address = network.address.to_string();
    let arguments = ["--token-file", text(&file), &address, "whoami"];
    // The user of this home has joined without a user.
    assert!(network.dkv(&["put", "k", "v"]).await.status.success());
    let unused = network.dkv_as(&arguments, &network.home()).await;
    assert!(output(&unused.stderr).contains("is not used"), "{unused:?}");
    assert!(output(&unused.stdout).contains("user     none"), "{unused:?}");
    for _ in 0..2 {
        let used = network.dkv_as(&arguments, &network.path("alice")).await;
        assert!(!output(&used.stderr).contains("is not used"), "{used:?}");
        assert!(output(&used.stdout).contains("user     alice"), "{used:?}");
    }
    // Another token of another user, or of the same: whose it is cannot be seen.
    let other = network.path("bob.token");
    std::fs::write(&other, token(&network, Role::Client, "bob").await).unwrap();
    let unused = ["--token-file", text(&other), &address, "whoami"];
    let unused = network.dkv_as(&unused, &network.path("alice")).await;
    assert!(output(&unused.stderr).contains("is not used"), "{unused:?}");
    assert!(output(&unused.stdout).contains("user     alice"), "{unused:?}");
    // A token of no user that was used says nothing.
    let plain = network.token_file(Role::Client);
    let plain = ["--token-file", text(&plain), &address, "whoami"];
    for _ in 0..2 {
        let used = network.dkv_as(&plain, &network.path("nobody")).await;
        assert!(used.status.success(), "{used:?}");
        assert!(!output(&used.stderr).contains("is not used"), "{used:?}");
    }
}
