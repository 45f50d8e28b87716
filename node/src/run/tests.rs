use dkv_wire::call::call;
use dkv_wire::id::GroupId;
use dkv_wire::identity::Role;
use dkv_wire::limits::FRAME_BYTES_MAX;
use dkv_wire::message::{Answer, Opening, Reply, Request, RequestBody};
use dkv_wire::network::Settings;
use dkv_wire::tls::Expect;

use super::rig::Founder;
use super::*;

/// Time in which everything here is done, by far.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const MIB: u64 = 1024 * 1024;

#[test]
fn a_segment_is_a_sixteenth_of_the_log_within_bounds() {
    for (log, segment) in [
        (0, MIB),
        (16 * MIB, MIB),
        (32 * MIB, 2 * MIB),
        (32 * MIB + 123_456, 2 * MIB),
        (33 * MIB, 2 * MIB + MIB / 16),
        (256 * MIB, 16 * MIB),
        (1024 * MIB, 16 * MIB),
        (u64::MAX, 16 * MIB),
    ] {
        assert_eq!(segment_bytes(log), segment, "{log}");
    }
}

/// A name becomes a directory below `data` only if it cannot lead anywhere else.
#[test]
fn not_every_name_is_a_name_of_a_directory() {
    for name in ["a", "node-1", "rack_2.host-3", "A9"] {
        assert!(is_file_name(name), "{name}");
    }
    for name in ["", ".", "..", ".hidden", "../a", "a/b", "/a", "a\\b", "a b", "ä", "a\0"] {
        assert!(!is_file_name(name), "{name:?}");
    }
}

#[test]
fn a_server_on_this_machine_is_reached_from_this_machine() {
    let server = ([127, 0, 0, 1], 4400).into();
    assert!(local_ip_towards(server).unwrap().is_loopback());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_task_outlives_its_node() {
    let founder = Founder::new(Settings::default());
    let Started { node, .. } = start(founder.args()).await.unwrap();
    until("the network does not begin", || node.view().is_some()).await;
    let shard = GroupId(1);
    until("nobody leads the shard", || node.group(shard).is_some_and(|group| group.leads())).await;

    // A client with a stream that it leaves open, and one that has been answered.
    let client = Endpoint::dial_only(Some(founder.credentials(Role::Client))).unwrap();
    let connection = client.connect(node.me().address, Expect::AnyNode).await.unwrap();
    let (mut open, _receive) = connection.open_bi().await.unwrap();
    open.write_all(&[0]).await.unwrap();
    let request = Request { id: 1, deadline_ms: 5000, body: RequestBody::View };
    let opening = Some(&Opening::Requests);
    let reply: Reply =
        call(&connection, opening, &request, FRAME_BYTES_MAX, PATIENCE).await.unwrap();
    assert!(matches!(reply.result, Ok(Answer::View(_))));

    let stopped = Arc::downgrade(&node);
    node.stop(PATIENCE).await;
    drop(node);
    let gone = || stopped.strong_count() == 0;
    until("somebody goes on with a node that was stopped", gone).await;
}
