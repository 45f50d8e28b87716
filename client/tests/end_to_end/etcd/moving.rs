//! `dkv import etcd`: from a file, and live from members, which here are a face of the same
//! network.

use dkv_etcd::proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest, request_op,
};
use dkv_test_support::{eventually, output, text};
use serde_json::{Value, json};

use super::Face;
use super::snapshots::snapshot;
use crate::harness::Network;
use crate::harness::process::spawn;

impl Face {
    /// Puts a key with a lease; zero is none.
    async fn put_with(&self, key: &str, value: &str, lease: i64) {
        let request = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            lease,
            ..Default::default()
        };
        self.kv().put(request).await.unwrap();
    }

    async fn grant(&self, id: i64, ttl: i64) {
        self.lease().lease_grant(LeaseGrantRequest { id, ttl }).await.unwrap();
    }

    async fn delete(&self, key: &str) {
        let request = DeleteRangeRequest { key: key.to_owned().into(), ..Default::default() };
        self.kv().delete_range(request).await.unwrap();
    }

    /// Returns all keys, their values and their leases.
    async fn all(&self) -> Vec<(String, String, i64)> {
        let all =
            RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..Default::default() };
        let answer = self.kv().range(all).await.unwrap().into_inner();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        answer.kvs.iter().map(|it| (text(&it.key), text(&it.value), it.lease)).collect()
    }

    async fn granted(&self, id: i64) -> i64 {
        let request = LeaseTimeToLiveRequest { id, keys: false };
        let answer = self.lease().lease_time_to_live(request).await.unwrap().into_inner();
        if answer.ttl < 0 { -1 } else { answer.granted_ttl }
    }
}

/// Runs a command, and returns its last document and what it said.
async fn run(network: &Network, arguments: &[&str], status: i32) -> (Value, String) {
    let ran = network.dkv(arguments).await;
    let (printed, said) = (output(&ran.stdout), output(&ran.stderr));
    assert_eq!(ran.status.code(), Some(status), "{arguments:?}: {printed}{said}");
    let last = printed.lines().last().and_then(|line| serde_json::from_str(line).ok());
    (last.unwrap_or_default(), said.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_file_comes_in() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.grant(77, 600).await;
    for at in 0..250 {
        face.put_with(&format!("k{at}"), &"v".repeat(at), if at % 50 == 0 { 77 } else { 0 }).await;
    }
    face.put("k1", "changed").await;
    face.delete("k2").await;
    let (revision, bytes) = snapshot(&face).await;
    let file = network.path("snapshot.db");
    std::fs::write(&file, &bytes).unwrap();
    let import = ["import", "etcd", text(&file), "--json", "--keyspace", "copy"];
    let (done, _) = run(&network, &import, 0).await;
    assert_eq!((&done["revision"], &done["keys"]), (&json!(revision), &json!(249)));
    assert_eq!((&done["equal"], &done["leases"]), (&json!(true), &json!(1)));
    let copy = Face::start_with(&network, &["--etcd-keyspace", "copy"]).await;
    assert_eq!(copy.all().await, face.all().await);
    assert_eq!(copy.granted(77).await, 600);

    let (_, said) = run(&network, &import, 4).await;
    assert!(said.contains("keyspace copy has 249 keys already"), "{said}");
    run(&network, &[&import[..], &["--continue"]].concat(), 0).await;
    copy.put("foreign", "1").await;
    copy.grant(78, 600).await;
    let (_, said) = run(&network, &[&import[..], &["--continue"]].concat(), 4).await;
    assert!(said.contains("somebody has written to it, or a lease"), "{said}");
    let overwrite = [&import[..], &["--continue", "--overwrite"]].concat();
    let (done, _) = run(&network, &overwrite, 0).await;
    assert_eq!(done["equal"], json!(true));
    assert_eq!(copy.all().await, face.all().await, "what the file does not have is deleted");
    assert_eq!((copy.granted(77).await, copy.granted(78).await), (600, -1));
    let mut damaged = bytes.clone();
    damaged[9000] ^= 1;
    for (bytes, why) in [
        (&damaged[..], "its checksum does not match"),
        (&bytes[..bytes.len() - 32], "it has no checksum"),
        (&bytes[..8192], "it is cut short"),
        (b"no database", "it is no bbolt database"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let import = ["import", "etcd", text(&file), "--keyspace", "damaged"];
        let (_, said) = run(&network, &import, 1).await;
        assert!(said.contains(why) && said.contains("nothing was stored"), "{said}");
    }
    // Nor does one go on with keys of which no import is known.
    let other = Face::start_with(&network, &["--etcd-keyspace", "other"]).await;
    other.put("own", "1").await;
    std::fs::write(&file, &bytes).unwrap();
    let import = ["import", "etcd", text(&file), "--keyspace", "other", "--continue"];
    let (_, said) = run(&network, &import, 4).await;
    assert!(said.contains("no import into it is known"), "{said}");
    // Not even a keyspace is left.
    run(&network, &["keyspace", "show", "damaged"], 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_followed_and_an_interrupted_import_goes_on() {
    let network = Network::start(1).await;
    let face = Face::start(&network).await;
    face.grant(7, 300).await;
    face.grant(8, 60).await;
    for at in 0..100 {
        face.put_with(&format!("k{at}"), "old", if at == 1 { 8 } else { 0 }).await;
    }
    let members = format!("http://127.0.0.1:1,{}", face.url(""));
    let server = network.address.to_string();
    let import = [&server, "import", "etcd", &members, "--keyspace", "copy"];
    let mut first = spawn(&import, &network.home(), &network.path("import.log"));
    let copy = Face::start_with(&network, &["--etcd-keyspace", "copy"]).await;
    let caught_up = async || {
        eventually("the copy has all", async || {
            let (one, other) = (face.all().await, copy.all().await);
            if one == other { Ok(()) } else { Err(format!("{} and {}", one.len(), other.len())) }
        })
        .await;
    };
    caught_up().await;
    // Each change once more than one transaction, in order.
    for at in 0..50 {
        face.put(&format!("k{at}"), &format!("new {at}")).await;
    }
    face.put_with("session", "7", 7).await;
    let puts = (0..100).map(|at| {
        let put = PutRequest { key: format!("t{at}").into(), ..Default::default() };
        RequestOp { request: Some(request_op::Request::RequestPut(put)) }
    });
    face.kv().txn(TxnRequest { success: puts.collect(), ..Default::default() }).await.unwrap();
    caught_up().await;
    // A lease that ends in the copy alone takes its keys with it, and both come back.
    face.grant(10, 12).await;
    face.put_with("short", "1", 10).await;
    caught_up().await;
    copy.lease().lease_revoke(LeaseRevokeRequest { id: 10 }).await.unwrap();
    caught_up().await;
    assert!(copy.all().await.iter().any(|(key, ..)| key == "short"));
    face.lease().lease_revoke(LeaseRevokeRequest { id: 10 }).await.unwrap();
    caught_up().await;
    first.kill();

    // Meanwhile keys and a lease come, change and go.
    face.delete("k3").await;
    face.put("k4", "newest").await;
    face.grant(9, 90).await;
    face.put_with("k5", "leased", 9).await;
    face.lease().lease_revoke(LeaseRevokeRequest { id: 8 }).await.unwrap();
    let import = ["import", "etcd", &members, "--keyspace", "copy", "--json", "--until-caught-up"];
    let (_, said) = run(&network, &import, 4).await;
    assert!(said.contains("--continue"), "{said}");
    let (done, _) = run(&network, &[&import[..], &["--continue"]].concat(), 0).await;
    assert_eq!((&done["equal"], &done["leases"]), (&json!(true), &json!(2)), "{done}");
    assert_eq!(copy.all().await, face.all().await);
    assert_eq!(
        [copy.granted(7).await, copy.granted(8).await, copy.granted(9).await],
        [300, -1, 90]
    );

    // It may go on as long as nobody else has written: an import must not delete their keys.
    face.put("k6", "later").await;
    let again = [&import[..], &["--continue"]].concat();
    let (done, _) = run(&network, &again, 0).await;
    assert_eq!(done["equal"], json!(true));
    copy.put("foreign", "1").await;
    let (_, said) = run(&network, &again, 4).await;
    assert!(said.contains("somebody has written") && said.contains("--overwrite"), "{said}");
    assert!(copy.all().await.iter().any(|(key, ..)| key == "foreign"));
    let (done, _) = run(&network, &[&again[..], &["--overwrite"]].concat(), 0).await;
    assert_eq!(done["equal"], json!(true));
    assert!(!copy.all().await.iter().any(|(key, ..)| key == "foreign"));
    let nobody = ["import", "etcd", "http://127.0.0.1:1", "--keyspace", "nobody"];
    let (_, said) = run(&network, &nobody, 1).await;
    assert!(said.contains("etcd does not answer: http://127.0.0.1:1: "), "{said}");
    run(&network, &["keyspace", "show", "nobody"], 3).await;
}
