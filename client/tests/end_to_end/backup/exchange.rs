//! Records that go out and come in: `export` and `import`.

use std::io::Write;
use std::time::Duration;

use dkv_api::{Lifetime, WriteOptions};
use dkv_test_support::{output, text};
use serde_json::json;

use super::{contents, run};
use crate::harness::Network;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_exported_can_be_imported() {
    let network = Network::with(json!({ "shards": 2 }), 1).await;
    let client = network.client().await;
    for (key, value) in [(&b"color"[..], &b"blue"[..]), (b"a,\"b\"\n", b"\0\xff"), (b"\xff", b"")] {
        client.write(key, value).await.unwrap();
    }
    for (format, name) in [("json", "all.jsonl"), ("csv", "all.csv")] {
        let exported = network.dkv(&["export", "--format", format]).await;
        assert!(exported.status.success(), "{}", output(&exported.stderr));
        let file = network.path(name);
        std::fs::write(&file, &exported.stdout).unwrap();
        run(&network, &["keyspace", "create", format], 0).await;
        let imported = run(&network, &["import", text(&file), "--keyspace", format], 0).await;
        assert!(imported.contains("loaded 3 records"), "{imported}");
        let copy = client.keyspace(format).await.unwrap();
        assert_eq!(contents(&copy).await, contents(&client).await, "{format}");
    }
    // With the time that a key has left.
    let hour = Duration::from_secs(3600);
    client.write_with("session", "Ada", WriteOptions::default().ttl(hour)).await.unwrap();
    let exported = network.dkv(&["export", "session"]).await;
    let file = network.path("session.jsonl");
    std::fs::write(&file, &exported.stdout).unwrap();
    run(&network, &["import", text(&file), "--keyspace", "json"], 0).await;
    let copy = client.keyspace("json").await.unwrap();
    assert!(matches!(copy.ttl("session").await.unwrap(), Lifetime::Ttl { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_redis_and_consul_come_in() {
    let network = Network::with(json!({ "shards": 1 }), 1).await;
    let dump = network.path("dump.rdb");
    let mut bytes = b"REDIS0011\xfe\x00\x00\x05color\x04blue".to_vec();
    bytes.extend([0xfc]);
    bytes.extend((u64::MAX / 2).to_le_bytes());
    bytes.extend(b"\x00\x07session\x03Ada\x01\x04list\x01\x01a\xff\0\0\0\0\0\0\0\0");
    std::fs::write(&dump, &bytes).unwrap();
    let ran = network.dkv(&["import", text(&dump)]).await;
    // Nothing lives for as long as that.
    let said = output(&ran.stderr);
    assert!(!ran.status.success() && said.contains("ttl_ms"), "{said}");
    let deadline = std::time::SystemTime::now() + Duration::from_secs(3600);
    let deadline = deadline.duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let mut bytes = b"REDIS0011\xfe\x00\x00\x05color\x04blue\xfc".to_vec();
    bytes.extend(deadline.to_le_bytes());
    bytes.extend(b"\x00\x07session\x03Ada\x01\x04list\x01\x01a\xff\0\0\0\0\0\0\0\0");
    std::fs::write(&dump, &bytes).unwrap();
    let ran = network.dkv(&["import", text(&dump)]).await;
    let (said, printed) = (output(&ran.stderr), output(&ran.stdout));
    assert!(said.contains("left out 1 key whose value is no string"), "{said}");
    assert!(printed.contains("loaded 2 records"), "{printed}{said}");
    let client = network.client().await;
    assert_eq!(client.read("color").await.unwrap().value, "blue");
    assert!(matches!(client.ttl("session").await.unwrap(), Lifetime::Ttl { .. }));

    let consul = network.path("consul.json");
    let mut file = std::fs::File::create(&consul).unwrap();
    file.write_all(br#"[{"key": "app/raw", "flags": 0, "value": "/wA="}]"#).unwrap();
    run(&network, &["import", text(&consul), "--format", "consul"], 0).await;
    assert_eq!(client.read("app/raw").await.unwrap().value, &b"\xff\0"[..]);
    let ran = network.dkv(&["import", text(&consul), "--format", "rdb"]).await;
    assert!(output(&ran.stderr).contains("it is no dump of Redis; nothing was stored"));
}
